"""SIGTERM and Ctrl-C while `dvc repro` trains: nothing works on, and the next run ends the same.

    python -m tests.trials.signals --trials 4 --seed 1

On the tiny model of the tests. A trial begins `train` from nothing, waits for its first saved state
and then for a random part of the time that is left, and sends the signal: to the process of DVC
alone, to its process group (as Ctrl-C in a terminal and `timeout` do), to one of two processes that
train together on the CPU, or to the group of the DVC that started those two. It passes where, once
DVC has ended, nothing that it started is left after GRACE_S, and `dvc repro` gives the bytes of the
run that nobody disturbed; the one after it must find nothing to do. SIGTERM to DVC alone is an
exception, which is DVC's: training goes on without it. There the next `dvc repro` is started beside
it, at once, and may be told that another process trains this run; the one after it is what counts.
Prints a line a trial and a table; ends with 1 if one failed. Needs Linux.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from tests.conftest import write_tiny_weights
from tests.repository import Repository, make_repository, wait_for
from tests.sessions import free_port
from tests.stage_server import serve
from tests.trials.common import check, forget, quick, read_outs, repro_with_lock

SIGNALS = (signal.SIGTERM, signal.SIGINT)
TARGETS = ("dvc", "all", "one of two", "all of two")
# In the environment of what a trial starts: torch gives its processes sessions of their own.
MARK = "SIGNALS_TRIAL"
# DVC 3.67.1 ends at once, as any program that does not mind the signal, and tells nobody.
LEFT_WORKING = {("dvc", signal.SIGTERM)}
LOCKED = "another process trains this run"
# Of what DVC has told to stop, or has not waited for: a step and a checkpoint of the tiny model.
GRACE_S = 20.0
STEPS = 40
TWO = """\
distributed_type: MULTI_GPU
use_cpu: true
num_machines: 1
num_processes: 2
main_process_port: {port}
mixed_precision: 'no'
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.trials.signals")
    parser.add_argument("--trials", type=int, default=4, help="of each signal to each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=TARGETS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    drawn = random.Random(arguments.seed)
    counts: dict[tuple[str, str], list[bool]] = {}
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder, "server")) as programs:
        write_tiny_weights(Path(folder, "weights"))
        made: dict[bool, tuple[Repository, dict[str, str], float]] = {}
        for target in arguments.targets:
            two = target.endswith("two")
            if two not in made:
                made[two] = prepare(Path(folder, f"repository-{two}"), programs, two)
            for number in SIGNALS:
                for _ in range(arguments.trials):
                    passed = trial(*made[two], target, number, drawn.random())
                    counts.setdefault((target, number.name), []).append(passed)
    print()
    for (target, name), passed in counts.items():
        print(f"{target:12} {name:8} {sum(passed)} of {len(passed)}")
    sys.exit(not all(all(passed) for passed in counts.values()))


def prepare(folder: Path, programs: Path, two: bool) -> tuple[Repository, dict[str, str], float]:
    """A repository that was run, its outs, and the seconds of training after its first state."""

    def change(path: Path) -> None:
        yaml = YAML()
        values = yaml.load(path)
        values["train"] |= {"max_steps": STEPS, "eval_steps": 5, "save_steps": 5}
        if two:
            config = path.parent / "presets/launch/two.yaml"
            config.write_text(TWO.format(port=free_port()), encoding="utf-8")
            name = str(config.relative_to(path.parent))
            command = f"accelerate launch --config_file {name}"
            values["launch"] = {"command": command, "config": name}
        yaml.dump(values, path)

    repository = make_repository(folder, folder.parent / "weights", programs, change)
    expected = read_outs(repository)
    process = begin(repository)
    start = time.monotonic()
    process.wait()
    return repository, expected, time.monotonic() - start


def begin(repository: Repository) -> subprocess.Popen:
    """`dvc repro` of a training from nothing, which has saved its first state."""
    forget(repository, "train")
    with (repository.folder.parent / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            ["dvc", "repro", "--single-item", "train"],
            cwd=repository.folder,
            env=repository.plain | {MARK: str(repository.folder)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_for(lambda: states(repository) or process.poll() is not None, 600)
    return process


def states(repository: Repository) -> list[Path]:
    """The complete states that a run could continue from."""
    return list((repository.folder / "models/resume").glob("*/step-*"))


def trial(
    repository: Repository,
    expected: dict[str, str],
    seconds: float,
    target: str,
    number: signal.Signals,
    part: float,
) -> bool:
    """Send one signal, say what became of the run, and whether that is what was promised."""
    process = begin(repository)
    time.sleep(seconds * part)
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        if target.startswith("all"):
            os.killpg(process.pid, number)
        for each in {"dvc": [process.pid], "one of two": trainers(repository)[1:]}.get(target, []):
            os.kill(each, number)
    code, start = process.wait(), time.monotonic()
    saved = max((int(each.name[5:]) for each in states(repository)), default=0)
    if (target, number) in LEFT_WORKING:
        beside, left = start_beside(repository)
    else:
        left = wait_for_end(repository, GRACE_S)
        beside = f"the last process {time.monotonic() - start:.1f} s later"
    wrong = left or check(quick(repository), expected)
    print(
        f"{number.name:7} to {target:10} at {part:4.0%} of {seconds:.1f} s: dvc ended with {code} "
        f"and step {saved} saved, {beside}: {wrong or 'the same'}",
        flush=True,
    )
    for each in members(repository):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    return not wrong


def start_beside(repository: Repository) -> tuple[str, str]:
    """`dvc repro` while the training of the one before goes on: what was seen, what was wrong."""
    before = len(members(repository))
    done = repro_with_lock(quick(repository))
    refused = LOCKED in done.stdout
    beside = f"{before} process(es) went on, the next run {'refused' if refused else 'passed'}"
    if done.returncode and not refused:
        return beside, done.stdout.strip()[-600:]
    return beside, wait_for_end(repository, 600)


def wait_for_end(repository: Repository, seconds: float) -> str:
    """Wait until nothing that the trial started is left; what is."""
    limit = time.monotonic() + seconds
    while (working := members(repository)) and time.monotonic() < limit:
        time.sleep(0.05)
    return f"processes are left: {list(working)}" if working else ""


def members(repository: Repository) -> dict[int, dict[str, str]]:
    """The processes that a trial has started and that have not ended, with their environments."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:  # it has just ended, or is another user's
            continue
        environment = dict(word.split("=", 1) for word in words if "=" in word)
        if environment.get(MARK) == str(repository.folder):
            found[int(path.parent.name)] = environment
    return found


def trainers(repository: Repository) -> list[int]:
    """Those that train, in the order of their ranks; what they have started is not one."""
    found: dict[int, int] = {}
    for process, environment in sorted(members(repository).items()):
        if "RANK" in environment:
            found.setdefault(int(environment["RANK"]), process)
    return [found[rank] for rank in sorted(found)]


if __name__ == "__main__":
    main()
