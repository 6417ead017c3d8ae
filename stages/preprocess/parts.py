"""The parts that documents lie in between the two passes, and a number for each document."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.preprocess.collect import read_part


@dataclass(frozen=True)
class Parts:
    """The documents of all parts, numbered through: part p holds [starts[p], starts[p + 1]).

    `sources` names each part's; "" is that of the leak files.
    """

    paths: tuple[Path, ...]
    sources: tuple[str, ...]
    starts: tuple[int, ...]

    def each(self) -> Iterator[tuple[Path, str, int]]:
        """Path, source and first document of each part of a source, not of the leak files."""
        for path, source, start in zip(self.paths, self.sources, self.starts[:-1], strict=True):
            if source:
                yield path, source, start

    def locate(self, document: int) -> tuple[Path, int]:
        """The part of a document, and its row there."""
        part = bisect_right(self.starts, document) - 1
        return self.paths[part], document - self.starts[part]

    def origin(self, document: int) -> str:
        """Where a document came from."""
        path, row = self.locate(document)
        return open_part(path)["origin"][row].as_py()


def index_parts(paths: Sequence[Path], sources: Sequence[str]) -> Parts:
    """Number the documents of all parts."""
    counts = [len(read_part(path)[0]) for path in paths]
    return Parts(tuple(paths), tuple(sources), tuple(np.cumsum([0, *counts]).tolist()))


@lru_cache(maxsize=64)
def open_part(path: Path) -> pa.RecordBatch:
    """The documents of a part, memory-mapped; the last ones stay open."""
    return read_part(path)[0]
