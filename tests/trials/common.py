"""What trials share: forgetting a stage of the tiny repository, running it, reading its outs."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
from ruamel.yaml import YAML
from warcio.archiveiterator import ArchiveIterator

from tests.repository import Repository

# Stage -> what it keeps of its own beside its outs.
STATES = {
    "fetch_url@extra": ["models/cache/files"],
    "fetch_web@pages": ["data/crawl"],
    "preprocess": ["data/work"],
    "train": ["models/resume"],
}
# DVC writes its lock in place: killed while it does, it leaves a part of it, and refuses to go on.
CUT_OFF = "dvc.lock' validation failed"


def copy(made: Path, folder: Path) -> Repository:
    """A copy of a repository that was run, with DVC's cache, to be spoilt."""
    shutil.copytree(made, folder, symlinks=True)
    return Repository(folder, Path("/nonexistent"))


def forget(repository: Repository, stage: str) -> None:
    """Leave nothing of a stage's run: no outs, no lock entry, no run cache, no state of its own."""
    yaml, path = YAML(), repository.folder / "dvc.lock"
    lock = yaml.load(path)
    for out in lock["stages"].pop(stage, {}).get("outs", []):
        remove(repository.folder / out["path"])
    yaml.dump(lock, path)
    for name in (".dvc/cache/runs", *STATES.get(stage, [])):
        remove(repository.folder / name)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def repro(repository: Repository, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """`dvc repro` as a user would start it; stdout and stderr in one."""
    return subprocess.run(
        ["dvc", "repro", *words],
        cwd=repository.folder,
        env=repository.plain | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def repro_with_lock(repository: Repository, **environment: str) -> subprocess.CompletedProcess:
    """`dvc repro`; where the lock was cut off, once more with that of the last commit."""
    done = repro(repository, **environment)
    if CUT_OFF in done.stdout:
        print("    (dvc.lock was cut off while DVC wrote it: git checkout dvc.lock)", flush=True)
        repository.run("git", "checkout", "-q", "dvc.lock")
        done = repro(repository, **environment)
    return done


def quick(repository: Repository) -> Repository:
    """The same, with stages forked from the server of the tests: for what follows a kill."""
    found = Repository(repository.folder, repository.programs)
    found.plain = found.environment
    return found


def check(repository: Repository, expected: dict[str, str], **environment: str) -> str:
    """What differs after `dvc repro`; "" where nothing does and the next one has nothing to do."""
    for asked in ("dvc repro", "dvc repro again"):
        done = repro_with_lock(repository, **environment)
        if done.returncode:
            return f"{asked} ended with {done.returncode}: {done.stdout.strip()[-600:]}"
    if "up to date" not in done.stdout:
        return "the next dvc repro found something to do"
    found = read_outs(repository)
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    return f"differ: {', '.join(wrong[:5])}" if wrong else ""


def read_outs(repository: Repository) -> dict[str, str]:
    """Path -> sha256 of every file under an out, read from the disk."""
    lock = YAML(typ="safe").load(repository.folder / "dvc.lock")["stages"]
    found = {}
    for out in (out for stage in lock.values() for out in stage.get("outs", [])):
        path = repository.folder / out["path"]
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(file.relative_to(repository.folder))] = digest(file)
    return found


def digest(file: Path) -> str:
    """The sha256 of a file; of what was crawled, of its pages without the times of fetching."""
    content = file.read_bytes()
    if file.parent.name == "pages" and file.suffix == ".parquet":
        columns = ["origin", "license", "evidence", "robots"]
        content = repr(pq.read_table(file, columns=columns).to_pylist()).encode()
    if file.parent.name == "pages" and file.name.endswith(".warc.gz"):
        with file.open("rb") as stream:
            found = [
                (record.rec_headers.get_header("WARC-Target-URI"), record.content_stream().read())
                for record in ArchiveIterator(stream)
            ]
        content = repr(found).encode()
    return hashlib.sha256(content).hexdigest()


def run_trials(trials: dict[str, Callable[[Path], str]], names: Sequence[str]) -> None:
    """Run each in a folder of its own; a trial says what was wrong, "" for nothing.

    A trial that cannot run here raises Skipped. Ends with 1 where one has failed.
    """
    failed = 0
    for name in names or trials:
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong = trials[name](Path(folder))
            except Skipped as reason:
                print(f"skipped  {name}: {reason}", flush=True)
                continue
            except AssertionError as error:  # of a command that should have passed
                wrong = " ".join(str(error).split())[-900:]
        print(
            f"{'FAILED' if wrong else 'passed':8} {name}{': ' if wrong else ''}{wrong}", flush=True
        )
        failed += bool(wrong)
    sys.exit(bool(failed))


class Skipped(Exception):
    """What this machine lacks."""
