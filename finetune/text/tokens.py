"""Tokenised examples on disk: Arrow files that are written in order and memory-mapped for reading.

The supervised tokens of an example are given by `spans`, so that labels come from positions and
never from comparing with a pad id or from searching for a template.
"""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("spans", pa.list_(pa.int32())),
    ]
)
ROWS_PER_BATCH = 1_000  # what the writer holds in memory


@dataclass(frozen=True)
class Example:
    """One example: `input_ids` int32[n]; `spans` int32[2k], flat [start, end) pairs, start >= 1."""

    id: str
    source: str
    input_ids: np.ndarray
    spans: np.ndarray

    def supervised(self) -> np.ndarray:
        """The supervised positions, int64; the token at p is predicted from position p - 1."""
        pairs = self.spans.reshape(-1, 2)
        return np.concatenate([np.arange(a, b) for a, b in pairs] or [np.arange(0)])


class TokenWriter:
    """Writes `tokens-00000.arrow`, ... into a folder that appears only when all is written.

    Each shard is an uncompressed Arrow file of record batches; memory does not grow with rows.
    """

    def __init__(self, folder: Path, rows_per_shard: int = 100_000) -> None:
        self._folder, self._rows_per_shard = folder, rows_per_shard
        self.partial = folder.with_name(f".{folder.name}.partial")
        self._rows: list[dict] = []
        self._file: pa.RecordBatchFileWriter | None = None
        self._shards = self._in_shard = 0

    def __enter__(self) -> "TokenWriter":
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self

    def write(self, id: str, source: str, input_ids: list[int], spans: list[int]) -> None:
        """Add one example; `spans` as in Example."""
        self._rows.append({"id": id, "source": source, "input_ids": input_ids, "spans": spans})
        if len(self._rows) >= min(ROWS_PER_BATCH, self._rows_per_shard):
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Add the examples of a batch of SCHEMA at once, after those of `write`."""
        self._flush()
        while len(batch):
            head = batch.slice(0, self._rows_per_shard - self._in_shard)
            self._append(head)
            batch = batch.slice(len(head))

    def __exit__(self, error: type | None, *_: object) -> None:
        if error is None:
            self._flush()
            if not self._shards:
                self._open()  # no rows at all: one empty shard
        if self._file:
            self._file.close()
        if error is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.partial.rename(self._folder)
        else:
            shutil.rmtree(self.partial, ignore_errors=True)

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._append(pa.RecordBatch.from_pylist(rows, SCHEMA))

    def _append(self, batch: pa.RecordBatch) -> None:
        if self._file is None:
            self._open()
        self._file.write_batch(batch)
        self._in_shard += len(batch)
        if self._in_shard >= self._rows_per_shard:
            self._file.close()
            self._file, self._in_shard = None, 0

    def _open(self) -> None:
        path = self.partial / f"tokens-{self._shards:05d}.arrow"
        self._file, self._shards = pa.ipc.new_file(str(path), SCHEMA), self._shards + 1


class TokenRows:
    """All examples of a folder, memory-mapped: `rows[i]` copies nothing but what it returns."""

    def __init__(self, folder: Path) -> None:
        shards = sorted(folder.glob("tokens-*.arrow"))
        if not shards:
            raise ValueError(f"{folder} holds no tokens-*.arrow; run `dvc repro preprocess`")
        self._batches = [batch for path in shards for batch in read_batches(path)]
        self._starts = np.cumsum([0] + [len(batch) for batch in self._batches])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        batch, at = self._batches[which], index - int(self._starts[which])
        return Example(
            batch["id"][at].as_py(),
            batch["source"][at].as_py(),
            batch["input_ids"][at].values.to_numpy(),
            batch["spans"][at].values.to_numpy(),
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, int64[N]."""
        return _concatenate([list_lengths(batch["input_ids"]) for batch in self._batches])

    @cached_property
    def sources(self) -> list[str]:
        """The names of all sources, sorted."""
        names = (batch["source"].unique().to_pylist() for batch in self._batches)
        return sorted({name for each in names for name in each})

    @cached_property
    def supervised(self) -> np.ndarray:
        """Supervised tokens of each example, int64[N]."""
        return _concatenate([supervised_counts(batch["spans"]) for batch in self._batches])


def read_batches(path: Path) -> list[pa.RecordBatch]:
    """The record batches of an Arrow file, memory-mapped, without the empty ones.

    Raises ValueError where the file is cut short or no Arrow file.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is damaged ({error}); run `dvc repro preprocess`") from None
    return [batch for batch in table.to_batches() if len(batch)]


def list_lengths(lists: pa.ListArray) -> np.ndarray:
    """The number of values of each list, int64."""
    return np.diff(lists.offsets.to_numpy()).astype(np.int64)


def supervised_counts(spans: pa.ListArray) -> np.ndarray:
    """The supervised tokens of each row of a batch, int64."""
    offsets = spans.offsets.to_numpy()
    pairs = spans.values.to_numpy().reshape(-1, 2)  # all values: offsets may not start at 0
    total = np.concatenate([[0], np.cumsum(pairs[:, 1] - pairs[:, 0], dtype=np.int64)])
    return np.diff(total[offsets // 2])


def _concatenate(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)
