"""The examples of all shards as columns in memory: what choosing, counting and writing need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from finetune.text.tokens import SCHEMA, list_lengths, supervised_counts
from stages.preprocess.tokenise import read_examples

ROWS_PER_BATCH = 1_000


@dataclass(frozen=True)
class Examples:
    """All examples, numbered through: some 40 bytes each. Arrays are of one value an example."""

    paths: tuple[Path, ...]
    starts: np.ndarray  # int64[shards + 1]
    source: np.ndarray  # int16: place in the sorted names
    document: np.ndarray  # int64: number over all shards
    key: np.ndarray  # uint64: hash of the document
    split: np.ndarray  # int8
    pieces: np.ndarray  # int32: examples of the same document
    tokens: np.ndarray  # int32
    supervised: np.ndarray  # int32
    cut: np.ndarray  # bool
    answer: np.ndarray  # int32: which of the document's answers it ends with

    def __len__(self) -> int:
        return len(self.document)

    def weights(self, unit: str) -> np.ndarray:
        """What each example weighs in `tokens` or `documents`, float64."""
        return self.tokens.astype(float) if unit == "tokens" else 1 / self.pieces

    def batches(self, rows: np.ndarray) -> Iterator[pa.RecordBatch]:
        """The examples of these numbers, in this order, as batches of the token schema."""
        for first in range(0, len(rows), ROWS_PER_BATCH):
            yield self._gather(rows[first : first + ROWS_PER_BATCH])

    def written(self, row: int) -> str | None:
        """The last answer of an example as a model writes it, where it differs from its text."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        return read_examples(self.paths[part])[0]["written"][row - int(self.starts[part])].as_py()

    def _gather(self, rows: np.ndarray) -> pa.RecordBatch:
        part = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(part, kind="stable")
        taken = [
            read_examples(self.paths[number])[0].take(rows[part == number] - self.starts[number])
            for number in np.unique(part)
        ]
        table = pa.Table.from_batches(taken).select(SCHEMA.names).replace_schema_metadata()
        return table.take(np.argsort(order)).combine_chunks().to_batches()[0]


def index_examples(paths: Sequence[Path], sources: Sequence[str]) -> Examples:
    """Read the columns that decide; tokens stay on disk. `sources` holds each part's."""
    names = sorted(set(sources))
    columns: list[tuple[np.ndarray, ...]] = []
    for path, source in zip(paths, sources, strict=True):
        batch, _ = read_examples(path)
        columns.append(_columns(batch, names.index(source)))
    joined = [np.concatenate(each) for each in zip(*columns, strict=True)]
    starts = np.cumsum([0, *(len(each[0]) for each in columns)])
    return Examples(tuple(paths), starts, *joined)


def _columns(batch: pa.RecordBatch, source: int) -> tuple[np.ndarray, ...]:
    return (
        np.full(len(batch), source, np.int16),
        batch["document"].to_numpy(),
        np.array([int(each, 16) for each in batch["id"].to_pylist()], np.uint64),
        batch["split"].to_numpy(),
        batch["pieces"].to_numpy(),
        list_lengths(batch["input_ids"]).astype(np.int32),
        supervised_counts(batch["spans"]).astype(np.int32),
        batch["cut"].to_numpy(zero_copy_only=False),
        batch["answer"].to_numpy(),
    )
