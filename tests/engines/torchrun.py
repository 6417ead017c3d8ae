"""Two machines of torchrun train together on loopback; one is lost in the middle.

    python -m tests.engines.torchrun

Each machine is what docs/scale.md says to type there: `dvc repro` on the first, on the second the
line that it prints below `Running stage 'train'`, in the same folder. The trials: nobody disturbs
them; the second's process is killed; the second machine, its launcher too, is killed. The first
must end by itself, and the next start of both with the bytes of the run that nobody disturbed.
"""

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil

from tests import sessions
from tests.engines.common import (
    TRAINED,
    compare,
    digests,
    distance,
    forget,
    launch_by,
    prepare,
    read_adapter,
    run_trials,
    steps_saved,
)
from tests.repository import Repository, wait_for

LIMIT_S = 300  # for what takes some 40 s undisturbed


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        repository = prepare(Path(folder))
        alone = read_adapter(repository)
        endpoint = f"localhost:{sessions.free_port()}"
        launch_by(
            repository,
            "torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d "
            f"--rdzv-endpoint {endpoint}",
        )
        expected: dict[str, str] = {}

        def undisturbed() -> tuple[str, str]:
            forget(repository)
            seconds, code, said = Pair(repository).finish()
            expected.update(digests(repository.folder, TRAINED))
            apart = distance(read_adapter(repository), alone) if not code else 1.0
            return (
                f"{seconds:.0f} s; {apart:.1e} from one process",
                "" if not code and apart < 1e-3 else f"ended with {code}: {said[-2000:]}",
            )

        run_trials(
            [
                ("two machines", undisturbed),
                ("process killed", partial(lose, repository, expected, kill_process)),
                ("machine lost", partial(lose, repository, expected, kill_machine)),
            ]
        )


class Pair:
    """Both machines, begun."""

    def __init__(self, repository: Repository) -> None:
        self.begun = time.monotonic()
        self._logs = [repository.folder.parent / f"{name}.log" for name in ("first", "second")]
        self.first = self._start(repository, 0, ["dvc", "repro", "train"])
        wait_for(lambda: self._line() or self.first.poll() is not None, LIMIT_S)
        assert self._line(), self.said()
        self.second = self._start(repository, 1, shlex.split(self._line()))

    def _start(self, repository: Repository, number: int, command: list[str]) -> subprocess.Popen:
        with self._logs[number].open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                command,
                cwd=repository.folder,
                env=repository.plain,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _line(self) -> str:
        """What `dvc repro` says that it runs as the stage; whole when the line ends."""
        after = self.said(0).partition("Running stage 'train':\n> ")[2]
        return after.partition("\n")[0] if "\n" in after else ""

    def said(self, *numbers: int) -> str:
        """What the machines of these numbers, or both, have said."""
        logs = [self._logs[number] for number in numbers or (0, 1)]
        return "\n".join(log.read_text("utf-8", "replace") for log in logs if log.exists())

    def finish(self) -> tuple[float, int, str]:
        """Seconds, exit code of the first machine, and what both have said."""
        try:
            code = self.first.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = 124
        seconds = time.monotonic() - self.begun
        if code == 0:
            self.second.wait(LIMIT_S)
        for machine in (self.first, self.second):
            kill(family(machine))
            machine.wait()
        return seconds, code, self.said()


def family(machine: subprocess.Popen) -> list[psutil.Process]:
    """All processes of a machine: the launcher begins the one that trains apart."""
    if machine.poll() is not None:
        return []
    parent = psutil.Process(machine.pid)
    return [parent, *parent.children(recursive=True)]


def kill_process(pair: Pair) -> None:
    """Only the process that trains."""
    kill(each for each in family(pair.second) if "torchrun" not in " ".join(each.cmdline()))


def kill_machine(pair: Pair) -> None:
    """All that runs there."""
    kill(family(pair.second))


def kill(processes: Iterable[psutil.Process]) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def lose(
    repository: Repository, expected: dict[str, str], kill: Callable[[Pair], None]
) -> tuple[str, str]:
    """Kill on the second machine in the middle, see the first end, start both again."""
    forget(repository)
    pair = Pair(repository)
    wait_for(lambda: steps_saved(repository) >= 20 or pair.first.poll() is not None, LIMIT_S)
    killed, saved = time.monotonic(), steps_saved(repository)
    kill(pair)
    _, code, said = pair.finish()
    after = time.monotonic() - killed
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    if code in (0, 124):
        return "", f"ended with {code} after the kill: {said[-2000:]}"
    # torchrun tells of it too, with a traceback of its own; what trains puts its rank before each.
    if "[rank0]:" in said or len(errors) != 1:
        return "", f"no one line but {errors}: {pair.said(0)[-3000:]}"
    seconds, code, said = Pair(repository).finish()
    told = (
        f"killed after step {saved}; the first ended {after:.0f} s later with {errors[0]!r}; the "
        f"next start took {seconds:.0f} s"
    )
    if code or "continuing from" not in said:
        return told, f"ended with {code}: {said[-2000:]}"
    return told, compare(repository.folder, TRAINED, expected)


if __name__ == "__main__":
    sys.exit(main())
