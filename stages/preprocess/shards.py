"""The shards that documents lie in between the two passes, and a number for each document."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from finetune.records import SPLITS
from stages.preprocess.shingles import bands
from stages.preprocess.splits import document_hash, words
from stages.preprocess.steps import Document
from stages.preprocess.turns import Turn

_TEXTS, _HASHES = pa.list_(pa.string()), pa.list_(pa.uint64())
SCHEMA = pa.schema(
    [
        ("id", pa.uint64()),  # of the raw values
        ("content", pa.uint64()),  # of the finished document
        ("identity", pa.uint64()),  # what draws its split
        ("own", pa.int8()),  # the source's own split; 0 is training or none
        ("leak", pa.int32()),  # the text of a leak file that it holds, or -1
        ("origin", pa.string()),
        ("license", pa.string()),
        ("label", pa.string()),
        ("roles", _TEXTS),
        ("texts", _TEXTS),
        ("more", _TEXTS),  # JSON, "" where a turn is its text alone
        ("compared", _TEXTS),  # null where it is equal to `texts`
        ("keys", _HASHES),
        ("bands", _HASHES),
    ]
)


@dataclass
class Counts:
    """What became of the rows of a shard, by step."""

    rows: int = 0
    columns: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)  # step -> documents that came to it
    mended: dict[str, dict[str, int]] = field(default_factory=dict)  # step -> what -> how often
    rejected: list[list[str]] = field(default_factory=list)  # step, reason, origin, text


def write_shard(
    path: Path, documents: list[Document], counts: Counts, like: float | None, leaks: Sequence[int]
) -> None:
    """Write documents as an Arrow file with their counts in its metadata. Atomic.

    `like` is the similarity that near-duplicates are looked for with, None where they are not.
    """
    schema = SCHEMA.with_metadata({"counts": json.dumps(vars(counts))})
    texts = [[turn[1] for turn in each.turns] for each in documents]
    compared = [
        None if each.compared == said else each.compared
        for each, said in zip(documents, texts, strict=True)
    ]
    columns = [
        pa.array([each.id for each in documents], pa.uint64()),
        pa.array([document_hash(each.turns) for each in documents], pa.uint64()),
        pa.array([each.identity for each in documents], pa.uint64()),
        pa.array([_own(each.split) for each in documents], pa.int8()),
        pa.array(leaks, pa.int32()),
        pa.array([each.origin for each in documents], pa.string()),
        pa.array([each.license for each in documents], pa.string()),
        pa.array([each.label for each in documents], pa.string()),
        pa.array([[turn[0] for turn in each.turns] for each in documents], _TEXTS),
        pa.array(texts, _TEXTS),
        pa.array([[_write_more(turn) for turn in each.turns] for each in documents], _TEXTS),
        pa.array(compared, _TEXTS),
        pa.array([each.keys for each in documents], _HASHES),
        lists(_bands(documents, like)),
    ]
    partial = path.with_suffix(".partial")
    with pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    partial.rename(path)


def read_shard(path: Path) -> tuple[pa.RecordBatch, Counts]:
    """The documents of a shard, memory-mapped, and what became of its rows."""
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    return file.get_batch(0), Counts(**json.loads(file.schema.metadata[b"counts"]))


def turns_of(shard: pa.RecordBatch, row: int) -> list[Turn]:
    """The turns of one document of a shard."""
    columns = (shard[name][row].as_py() for name in ("roles", "texts", "more"))
    return [
        Turn(role, text, json.loads(more) if more else None)
        for role, text, more in zip(*columns, strict=True)
    ]


def compared_of(shard: pa.RecordBatch, row: int) -> list[str]:
    """What one document says as it came: what near-duplicates are compared by."""
    said = shard["compared"][row]
    return (said if said.is_valid else shard["texts"][row]).as_py()


@dataclass(frozen=True)
class Shards:
    """The documents of all shards, numbered through: shard s holds [starts[s], starts[s + 1])."""

    paths: tuple[Path, ...]
    sources: tuple[str, ...]  # of each shard
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return self.starts[-1]

    def each(self) -> Iterator[tuple[Path, str, int]]:
        """Path, source and first document of each shard."""
        yield from zip(self.paths, self.sources, self.starts[:-1], strict=True)

    def locate(self, document: int) -> tuple[Path, int]:
        """The shard of a document, and its row there."""
        shard = bisect_right(self.starts, document) - 1
        return self.paths[shard], document - self.starts[shard]

    def source(self, document: int) -> str:
        """The name of a document's source."""
        return self.sources[bisect_right(self.starts, document) - 1]

    def origin(self, document: int) -> str:
        """Where a document came from."""
        path, row = self.locate(document)
        return open_shard(path)["origin"][row].as_py()

    def column(self, name: str) -> np.ndarray:
        """A column of numbers over all documents."""
        found = [open_shard(path)[name].to_numpy() for path in self.paths]
        return np.concatenate(found) if found else np.zeros(0)


def index_shards(paths: Sequence[Path], sources: Sequence[str]) -> Shards:
    """Number the documents of all shards."""
    open_shard.cache_clear()  # which knows relative paths of an earlier run in this process
    counts = [len(open_shard(path)) for path in paths]
    return Shards(tuple(paths), tuple(sources), tuple(np.cumsum([0, *counts]).tolist()))


@lru_cache(maxsize=256)
def open_shard(path: Path) -> pa.RecordBatch:
    """The documents of a shard, memory-mapped; the last ones stay open."""
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def count_by_source(shards: Shards) -> dict[str, list[Counts]]:
    """The counts of each source's shards."""
    found: dict[str, list[Counts]] = {}
    for path, source, _ in shards.each():
        found.setdefault(source, []).append(read_shard(path)[1])
    return found


def total(counters: Sequence[dict[str, int]]) -> Counter[str]:
    """The sum of counters."""
    return sum((Counter(each) for each in counters), Counter())


def lists(values: np.ndarray) -> pa.ListArray:
    """uint64[n, k] as n lists of k."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, values.ravel())


def _own(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else 0


def _bands(documents: Sequence[Document], like: float | None) -> np.ndarray:
    if like is None or not documents:
        return np.zeros((len(documents), 0), np.uint64)
    return bands([words("\n".join(each.compared)) for each in documents], like)


def _write_more(turn: Turn) -> str:
    """What belongs to a turn beside its text, as JSON; "" where there is nothing."""
    more = getattr(turn, "more", None)
    return json.dumps(more, ensure_ascii=False, sort_keys=True) if more else ""
