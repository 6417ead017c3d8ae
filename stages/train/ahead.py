"""Steps made ready while the device is busy with the ones before them."""

from concurrent.futures import Future, ThreadPoolExecutor

from torch.utils.data import Dataset

from stages.train.steps import Step, Steps


class Ahead(Dataset):
    """`steps`, read in order: while one is used, the next is made, in page-locked memory.

    A thread, not processes: what takes time is numpy's copying, which lets others run.
    """

    def __init__(self, steps: Steps, pin: bool) -> None:
        self._steps, self._pin = steps, pin
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._next: dict[int, Future[Step]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> Step:
        waiting = self._next.pop(number, None) or self._worker.submit(self._make, number)
        self.forget()
        if number + 1 < len(self):
            self._next[number + 1] = self._worker.submit(self._make, number + 1)
        return waiting.result()

    def forget(self) -> None:
        """Drop what was made ahead: the steps are cut differently from now on."""
        for future in self._next.values():
            future.cancel()
        self._next.clear()

    def _make(self, number: int) -> Step:
        step = self._steps[number]
        return step.pin_memory() if self._pin else step
