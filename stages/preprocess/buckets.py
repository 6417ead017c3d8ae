"""Records scattered over files by a number, so that each file fits in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MAX_FILES = 512  # open at a time


class Buckets:
    """Files that records are appended to."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __enter__(self) -> "Buckets":
        self._files = [path.open("wb") for path in self._paths]
        return self

    def append(self, records: np.ndarray, which: np.ndarray | None) -> None:
        """Append each record to the file of its number; None is the first."""
        if which is None:
            records.tofile(self._files[0])
            return
        order = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[order], np.arange(len(self._files)), side="right")
        for file, chunk in zip(self._files, np.split(records[order], ends[:-1]), strict=True):
            chunk.tofile(file)

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()
