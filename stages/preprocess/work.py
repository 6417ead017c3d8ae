"""Work on all cores that continues where it stopped: tasks that each write one file, or not at all.

The files lie in a folder that is named by everything that shapes them, outside DVC's outs, which
are deleted before a stage runs. It goes when the stage succeeds.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Protocol

from tqdm import tqdm

log = logging.getLogger(__name__)


class Task(Protocol):
    """Anything with the file that it makes."""

    path: Path


@dataclass(frozen=True)
class Work:
    """A folder for files, and the processes that make them."""

    folder: Path
    pool: ProcessPoolExecutor | None

    def run(self, name: str, function: Callable[[Task], None], tasks: Sequence[Task]) -> None:
        """Make the file of each task that is not there yet."""
        todo = [task for task in tasks if not task.path.exists()]
        if len(todo) < len(tasks):
            log.info("%s: %d of %d files are there", name, len(tasks) - len(todo), len(tasks))
        done = self.pool.map(function, todo) if self.pool else map(function, todo)
        for _ in tqdm(done, desc=name, total=len(todo), unit="file", disable=None):
            pass


@contextmanager
def open_work(fingerprint: str, workers: int, keep: bool = False) -> Iterator[Work]:
    """The work of one fingerprint; one process at a time, since each takes all cores. The folder
    goes at the end, unless something failed or the files are for another to `keep`.

    Processes are forked at once, while this one has no threads that a fork would lose.
    """
    root = Path(os.environ.get("DVC_ROOT", ".")) / "data/work"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"preprocess-{fingerprint}"
    with (root / "lock").open("w", encoding="utf-8") as lock, _pool(workers) as pool:
        _wait_for(lock)
        folder.mkdir(exist_ok=True)
        for other in sorted(set(root.glob("preprocess-*")) - {folder}):
            log.info("%s is unfinished work of other settings; delete it if not needed", other)
        yield Work(folder, pool)
        if not keep:
            shutil.rmtree(folder)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    if workers == 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        pool.submit(os.getpid).result()
        yield pool


def _wait_for(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("another process prepares data; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
