"""SIGTERM (spot machines, Slurm) and SIGINT (Ctrl-C): save at the next step, then stop.

Where another process is gone, nothing can be saved: this one ends in one line.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist


class Interrupted(Exception):
    """Training stopped on a signal, after saving where there was something to save."""


@contextmanager
def lost_in_one_line() -> Iterator[None]:
    """Raise ValueError where one of the processes that train together is gone."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "/gloo/" in str(error)):
            raise
        raise ValueError(
            "another process that trains with this one is gone (its own log says why; here: "
            f"{str(error).splitlines()[0][:200]}): start all of them again, and they go on from "
            "the last checkpoint"
        ) from None


class Interruption:
    """Whether a signal came, on any process. The second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}
        # Over the CPU, so that asking the others does not wait for the accelerator.
        several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self._group = dist.new_group(backend="gloo") if several else None

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether any process was told to stop. Every process must ask at the same points."""
        if self._group is not None:
            told = torch.tensor(self.signal or 0)
            dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self._group)
            self.signal = int(told) or None
        return self.signal is not None

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        for each, handler in self._before.items():
            signal.signal(each, handler)
