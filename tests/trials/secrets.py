"""Search everything that a run leaves behind for its tokens: none may be found.

    python -m tests.trials.secrets [NAME ...]

HF_TOKEN and WANDB_API_KEY stand in the environment and, with other values, in `.env`. Home,
temporary folder and DVC's shared folder are the trial's own. Then every file of these and of the
repository is searched, but `.env` itself: as it is and, where it is packed, unpacked; of Git every
object, and what the commands have said. Before, the search must find what was hidden from it.
"""

import argparse
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from ruamel.yaml import YAML

from tests import hub_server
from tests.conftest import write_tiny_weights
from tests.repository import ROOT, Repository, lay_out, wait_for
from tests.trials.common import run_trials

NAME = "someone/questions"
PLACED = {"HF_TOKEN": "hf_MarkedForTheTrialA1", "WANDB_API_KEY": "c0ffee" * 6 + "a2b2"}
IN_FILE = {"HF_TOKEN": "hf_MarkedForTheTrialB3", "WANDB_API_KEY": "decade" * 6 + "b4d4"}
MARKS = [each.encode() for each in (*PLACED.values(), *IN_FILE.values())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.trials.secrets")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, hub_server.serve() as hub:
        write_tiny_weights(Path(folder, "weights"))
        hub.token = PLACED["HF_TOKEN"]
        questions = (ROOT / "data/sample/law.jsonl").read_bytes().splitlines(keepends=True)[:80]
        commit = hub.commit("datasets", NAME, {"law.jsonl": b"".join(questions)})
        hub.repositories["datasets", NAME].gated = True
        parts = (Path(folder, "weights"), hub, commit)
        trials: dict[str, Callable[[Path], str]] = {"search": search_finds}
        trials |= {each.__name__: partial(each, *parts) for each in (failing, whole, reporting)}
        run_trials(trials, arguments.names)


def search_finds(folder: Path) -> str:
    """The search finds a token in each form that files have here."""
    text = b"so much text " * 50 + MARKS[0]
    repository = folder / "repository"
    repository.mkdir()
    (repository / "plain").write_bytes(text)
    (repository / "gzip").write_bytes(gzip.compress(text))
    (repository / "zstd").write_bytes(zstandard.compress(text))
    (repository / "inner").write_bytes(gzip.compress(zstandard.compress(text)))
    with zipfile.ZipFile(repository / "zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("member", text)
    table = pa.table({"text": [text.decode()]})
    pq.write_table(table, repository / "parquet", compression="zstd")
    (repository / ".env").write_bytes(text)
    git = ["git", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run(
        [*git, "hash-object", "-w", "--stdin"], input=text, check=True, stdout=subprocess.DEVNULL
    )
    _, found = search(folder)
    names = {"plain", "gzip", "zstd", "inner", "zip", "parquet", "objects of Git"}
    missed = names - {name.rpartition("/")[2] for name in found}
    return f"not found in {sorted(missed)}" if missed else ""


def failing(weights: Path, hub: hub_server.Hub, commit: str, folder: Path) -> str:
    """Downloads that fail: refused, a hub in trouble, a connection that breaks."""
    repository = prepare(folder, weights, hub, commit)
    fetch = ("dvc", "repro", "-v", "fetch_hub@law")
    hub.token = "hf_of_somebody_else"
    refused = say(repository, *fetch)
    hub.token = PLACED["HF_TOKEN"]
    hub.fail("/", times=1000, status=500)
    troubled = say(repository, *fetch)
    hub.faults.clear()
    hub.fail("/resolve/", times=1000, cut_at=100, reset=True)
    broken = say(repository, *fetch)
    hub.faults.clear()
    if not (refused and troubled and broken):
        return "a download that should have failed did not"
    return report(repository, folder)


def whole(weights: Path, hub: hub_server.Hub, commit: str, folder: Path) -> str:
    """A whole run, an experiment of the queue, the evidence, a remote; all with a token."""
    repository = prepare(folder, weights, hub, commit)
    asked = len(hub.log)
    failed = [say(repository, "dvc", "repro", "-v")]
    if not any(PLACED["HF_TOKEN"] in str(headers) for _, _, headers in hub.log[asked:]):
        return "the token was not used"
    repository.commit("run")
    failed.append(say(repository, sys.executable, "-m", "tools.evidence"))
    failed.append(say(repository, "dvc", "remote", "add", "-d", "store", str(folder / "store")))
    failed.append(say(repository, "dvc", "push", "-v"))
    repository.commit("remote")
    gate = 'evaluate.gate=["rows > 0"]'
    failed.append(say(repository, "dvc", "exp", "run", "--queue", "-S", gate))
    failed.append(say(repository, "dvc", "queue", "start", "-v"))
    wait_for(partial(is_idle, repository), 900)
    failed.append("Success" not in repository.run("dvc", "queue", "status"))
    return f"a command failed: {failed}" if any(failed) else report(repository, folder)


def reporting(weights: Path, hub: hub_server.Hub, commit: str, folder: Path) -> str:
    """Runs that report to Weights & Biases: a server that is not there, and a folder."""
    if find_spec("wandb") is None:
        return "there is no wandb: pip install it for this trial"
    repository = prepare(folder, weights, hub, commit)
    repository.set("train.report_to", ["wandb"])
    repository.plain |= {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    refused = say(repository, "dvc", "repro")
    repository.plain |= {"WANDB_MODE": "offline"}
    reported = say(repository, "dvc", "repro")
    if not refused or reported or not list(repository.folder.glob("wandb/offline-run-*/*.wandb")):
        return f"exit codes {refused} (not 0) and {reported} (0), or nothing was reported"
    return report(repository, folder)


def is_idle(repository: Repository) -> bool:
    status = repository.run("dvc", "queue", "status")
    return not any(word in status for word in ("Queued", "Running"))


def prepare(folder: Path, weights: Path, hub: hub_server.Hub, commit: str) -> Repository:
    """A repository whose one source is a gated dataset, with tokens wherever people put them."""

    def from_hub(path: Path) -> None:
        yaml = YAML()
        values = yaml.load(path)
        values["data"]["hub"] = {
            "law": {
                "name": NAME,
                "revision": commit,
                "files": {"all": "*.jsonl"},
                "columns": [],
                "filter": {},
                "max_rows": None,
                "license": "CC-BY-SA-4.0",
                "evidence": "the card",
            }
        }
        values["data"]["files"] = {}
        yaml.dump(values, path)

    places = {"HOME": "home", "TMPDIR": "temp", "DVC_SITE_CACHE_DIR": "site", "said": "said"}
    for each in places.values():
        (folder / each).mkdir()
    repository = lay_out(folder / "repository", weights, Path("/nonexistent"), from_hub)
    for name in [n for n in repository.plain if n.startswith(("HF_", "XDG_"))]:
        del repository.plain[name]
    repository.plain |= {key: str(folder / each) for key, each in places.items() if key != "said"}
    repository.plain |= {**PLACED, "HF_ENDPOINT": hub.endpoint, "OMP_NUM_THREADS": "1"}
    repository.environment = repository.plain
    text = "".join(f"{name}={value}\n" for name, value in IN_FILE.items())
    (repository.folder / ".env").write_text(text, encoding="utf-8")
    return repository


def say(repository: Repository, *command: str) -> int:
    """Run a command, and keep what it says; its exit code."""
    said = repository.folder.parent / "said"
    path = said / f"{len(list(said.iterdir()))}.txt"
    with path.open("w", encoding="utf-8") as file:
        return subprocess.run(
            command, cwd=repository.folder, env=repository.plain, stdout=file, stderr=file
        ).returncode


def report(repository: Repository, folder: Path) -> str:
    """Commit as people do, search, and tell where a token is."""
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-qm", "all", "--allow-empty")
    number, found = search(folder)
    print(f"    {number} files and objects searched for {len(MARKS)} tokens", flush=True)
    return f"found in {', '.join(found)}" if found else ""


def search(folder: Path) -> tuple[int, list[str]]:
    """How many files and Git objects were searched, and those that hold a token."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
    paths = [p for p in paths if p != folder / "repository/.env"]
    found = [str(path.relative_to(folder)) for path in paths if holds(path.read_bytes())]
    git = ["git", "cat-file", "--batch-all-objects"]
    where = {"cwd": folder / "repository", "check": True, "stdout": subprocess.PIPE}
    objects = subprocess.run([*git, "--batch"], **where).stdout
    number = len(subprocess.run([*git, "--batch-check"], **where).stdout.splitlines())
    if holds(objects):
        found.append("objects of Git")
    return len(paths) + number, found


def holds(content: bytes) -> bool:
    """Whether a token is in it, or in what it holds packed."""
    return any(mark in content for mark in MARKS) or any(map(holds, unpacked(content)))


def unpacked(content: bytes) -> Iterator[bytes]:
    """What is inside of a packed file."""
    if content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    elif content.startswith(b"\x28\xb5\x2f\xfd"):
        yield zstandard.ZstdDecompressor().stream_reader(content).read()
    elif content.startswith(b"PAR1"):
        file = pq.ParquetFile(io.BytesIO(content))
        yield json.dumps(file.read().to_pylist(), default=str, ensure_ascii=False).encode()
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for name in packed.namelist():
                yield packed.read(name)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
