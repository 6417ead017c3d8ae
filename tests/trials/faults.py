"""What machines do to a run, one trial each, on the tiny model; needs root on Linux.

    python -m tests.trials.faults [NAME ...]

A trial passes where the run ends with the bytes of an undisturbed one, or where it ends in one line
of ours, without a traceback, and the next `dvc repro` ends with those bytes once the cause is gone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.conftest import write_tiny_weights
from tests.repository import make_repository
from tests.trials.common import Skipped, check, copy, forget, read_outs, repro, run_trials

FILLED = ("fetch_model", "fetch@law", "preprocess", "baseline", "train", "evaluate", "report")
# Left for a stage that is to find the disk full; DVC's own locks take a page of 4 KiB or two.
FREE_BYTES = dict.fromkeys(FILLED, 24 * 1024) | {"baseline": 8 * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.trials.faults")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_weights(Path(folder, "weights"))
        made = Path(folder, "repository")
        repository = make_repository(made, Path(folder, "weights"), Path("/nonexistent"))
        run_trials(make_trials(made, read_outs(repository)), arguments.names)


def make_trials(made: Path, expected: dict[str, str]) -> dict[str, Callable[[Path], str]]:
    """Name -> trial, which gets an empty folder."""
    trials = {f"disk-full-{stage}": partial(full, made, expected, stage) for stage in FILLED}
    trials |= {f"read-only-{place}": partial(read_only, made, expected, place) for place in PLACES}
    others = (blanks, ascii_locale, no_network, two_at_once, corrupt_cache, clock_back)
    return trials | {each.__name__: partial(each, made, expected) for each in others}


def again(folder: Path, made: Path, expected: dict[str, str], *prefix: str, **env: str) -> str:
    """Everything anew in a copy, under a command or environment."""
    repository = copy(made, folder)
    done = subprocess.run(
        [*prefix, "dvc", "repro", "--force"],
        cwd=folder,
        env=repository.plain | {"FRESH": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        return f"ended with {done.returncode}: {done.stdout.strip()[-600:]}"
    return check(repository, expected)


def blanks(made: Path, expected: dict[str, str], folder: Path) -> str:
    """A path with blanks and letters outside of ASCII."""
    return again(folder / "Üben & Prüfen, 2. Versuch", made, expected)


def ascii_locale(made: Path, expected: dict[str, str], folder: Path) -> str:
    """A locale that is not UTF-8."""
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    return again(folder / "repository", made, expected, **plain)


def no_network(made: Path, expected: dict[str, str], folder: Path) -> str:
    """No network after the first run."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        raise Skipped("unshare -n is not allowed here")
    return again(folder / "repository", made, expected, "unshare", "-n", HF_HUB_OFFLINE="0")


def clock_back(made: Path, expected: dict[str, str], folder: Path) -> str:
    """The clock is set back an hour between two runs."""
    if not shutil.which("faketime"):
        raise Skipped("apt-get install faketime")
    return again(folder / "repository", made, expected, "faketime", "-f", "-1h")


def two_at_once(made: Path, expected: dict[str, str], folder: Path) -> str:
    """Two `dvc repro` in one folder: one waits or is refused, nothing is mixed."""
    repository = copy(made, folder / "repository")
    for stage in ("preprocess", "train", "evaluate"):
        forget(repository, stage)
    command = ["dvc", "repro"]
    both = [
        subprocess.Popen(
            command,
            cwd=repository.folder,
            env=repository.plain,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(2)
    ]
    said = [each.communicate()[0] for each in both]
    if all(each.returncode for each in both):
        return f"both ended with an error: {said[0][-300:]} {said[1][-300:]}"
    if any("Traceback" in each for each in said):
        return "a traceback"
    return check(repository, expected)


def corrupt_cache(made: Path, expected: dict[str, str], folder: Path) -> str:
    """A byte of the adapter changes in DVC's cache, whose mode 0444 DVC takes for a promise."""
    repository = copy(made, folder / "repository")
    name = "models/adapter/adapter_model.safetensors"
    content = (repository.folder / name).read_bytes()
    for path in (repository.folder / ".dvc/cache/files").rglob("*"):
        if path.is_file() and path.read_bytes() == content:
            path.chmod(0o644)
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            path.chmod(0o444)
            break
    shutil.rmtree(repository.folder / "models/adapter")
    repository.run("dvc", "checkout", "-q", "models/adapter")
    if (repository.folder / name).read_bytes() == content:
        return "the byte was not changed"
    done = repro(repository, "--force", "--single-item", "evaluate")
    if not done.returncode or name.rpartition("/")[2] not in done.stdout:
        return f"not found: {done.stdout[-300:]}"
    if "Traceback" in done.stdout:
        return "a traceback"
    shutil.rmtree(repository.folder / ".dvc/cache")
    shutil.rmtree(repository.folder / "models/adapter")
    return check(repository, expected)


def full(made: Path, expected: dict[str, str], stage: str, folder: Path) -> str:
    """The disk is full while the stage writes."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", folder]).returncode:
        raise Skipped("mount needs root")
    try:
        repository = copy(made, folder / "repository")
        forget(repository, stage)
        filler = folder / "filler"
        with filler.open("wb") as file:
            space = os.statvfs(folder)
            file.truncate(0)
            left = space.f_bavail * space.f_frsize - FREE_BYTES[stage]
            block = bytes(1 << 20)
            while left > 0:
                left -= file.write(block[: min(left, len(block))])
        done = repro(repository, "--single-item", stage, TMPDIR=str(folder))
        filler.unlink()
        if not done.returncode:
            return f"{stage} fitted into {FREE_BYTES[stage]} bytes"
        if "Traceback" in done.stdout:
            return f"a traceback: {done.stdout[-600:]}"
        if "space" not in done.stdout and "full" not in done.stdout:
            return f"the reason is not said: {done.stdout[-400:]}"
        return check(repository, expected)
    finally:
        subprocess.run(["umount", folder], check=True)


PLACES = ("data", "models", "home")


def read_only(made: Path, expected: dict[str, str], place: str, folder: Path) -> str:
    """A folder, or the user's home, cannot be written."""
    repository = copy(made, folder / "repository")
    home = folder / "home"
    home.mkdir()
    target = home if place == "home" else repository.folder / place
    stage = {"data": "preprocess", "models": "train", "home": "train"}[place]
    forget(repository, stage)
    if subprocess.run(["mount", "--bind", target, target]).returncode:
        raise Skipped("mount needs root")
    subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
    try:
        done = repro(repository, "--single-item", stage, HOME=str(home), XDG_CACHE_HOME="")
    finally:
        subprocess.run(["umount", target], check=True)
    if "Traceback" in done.stdout:
        return f"a traceback: {done.stdout[-600:]}"
    if done.returncode and "ead-only" not in done.stdout:
        return f"the reason is not said: {done.stdout[-400:]}"
    return check(repository, expected)


if __name__ == "__main__":
    sys.exit(main())
