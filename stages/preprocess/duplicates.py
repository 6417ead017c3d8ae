"""Which documents are copies of others, or nearly so, and which must share a split.

Documents that share a hash are looked at: that of the finished document, the MinHash bands of its
words (candidates, then compared word by word), and its keys: question, group, beginning of a
conversation (which join without comparing). The hashes of all documents go to bucket files on disk,
so that memory holds one bucket at a time. Of two that are alike the one of the higher rank stays:
test before validation before training, then what a source of the mixture has before what one with a
share of 0 has, then the smaller id, so that the order of rows decides nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from finetune.params import Preprocess
from stages.preprocess.boilerplate import find_common
from stages.preprocess.buckets import MAX_FILES, Buckets
from stages.preprocess.identity import BEGINNING, COMPARE, GROUP
from stages.preprocess.shards import Shards, compared_of, open_shard
from stages.preprocess.shingles import bands, shingles, similarity, threshold
from stages.preprocess.splits import TEST, TRAIN, VALIDATION, words
from stages.preprocess.work import Work

JOINED, DUPLICATE, NEAR_DUPLICATE, ALIKE, GROUPED, EQUAL = range(6)  # how two are related
BUCKET_BYTES = 64_000_000
MANY, MANY_SHARE = 20, 0.1  # documents that begin alike: a common opening joins nothing
_RANK = {TEST: 0, VALIDATION: 1, TRAIN: 2}
_ENTRY = np.dtype([("hash", "<u8"), ("document", "<i8")])
_PAIR = np.dtype([("document", "<i8"), ("other", "<i8")])
RELATION = np.dtype([("document", "<i8"), ("other", "<i8"), ("kind", "<i8")])


@dataclass(frozen=True)
class Compare:
    """A file of candidate pairs, and the file of relations to make of it."""

    path: Path
    pairs: Path
    shards: Shards
    common: dict[str, np.ndarray]
    settings: Preprocess


def find_relations(
    work: Work, shards: Shards, settings: Preprocess, unused: Collection[str] = ()
) -> np.ndarray:
    """Relations [document, other, kind], sorted; `other` is the one that would stay. `unused` are
    the sources whose share of the mixture is 0.

    DUPLICATE: the same finished document; EQUAL: that, though the rows differ. NEAR_DUPLICATE:
    alike in what is asked and in what is answered; ALIKE: alike as a whole. JOINED and GROUPED: the
    same question or beginning, the same group.
    """
    folder = work.folder / "duplicates"
    folder.mkdir(exist_ok=True)
    _said.cache_clear()
    common = find_common(shards) if settings.near_duplicates else {}
    done = folder / "pairs.done"
    if not done.exists():
        entries = _write_entries(folder, shards, common, settings)
        joined = _write_pairs(folder, shards, entries, ranks(shards, unused))
        np.save(folder / "joined.npy", joined)
        done.touch()
    tasks = [
        Compare(pairs.with_suffix(".npy"), pairs, shards, common, settings)
        for pairs in sorted(folder.glob("pairs-*.bin"))
    ]
    work.run("compare", compare, tasks)
    found = [np.load(folder / "joined.npy"), *(np.load(task.path) for task in tasks)]
    return np.unique(np.concatenate(found))


def compare(task: Compare) -> None:
    """Judge each candidate pair."""
    pairs = np.unique(np.fromfile(task.pairs, _PAIR)).tolist()
    judged = [(a, b, _judge(a, b, task)) for a, b in pairs]
    partial = task.path.with_suffix(".partial.npy")
    np.save(partial, np.array([each for each in judged if each[2] >= 0], RELATION))
    partial.rename(task.path)


def _judge(document: int, other: int, task: Compare) -> int:
    """How two documents are related, or -1."""
    (path, row), (path_, row_) = task.shards.locate(document), task.shards.locate(other)
    mine, theirs = open_shard(path), open_shard(path_)
    grouped = _group(mine, row) & _group(theirs, row_)
    if mine["content"][row] == theirs["content"][row_]:
        if mine["id"][row] == theirs["id"][row_]:
            return DUPLICATE
        return DUPLICATE if _alike(document, other, task) else EQUAL
    if not task.settings.near_duplicates or not _alike(document, other, task):
        return -1
    same_turns = len(mine["roles"][row]) == len(theirs["roles"][row_])
    if same_turns and not grouped and _alike(document, other, task, by_turn=True):
        return NEAR_DUPLICATE
    return ALIKE


def _alike(document: int, other: int, task: Compare, by_turn: bool = False) -> bool:
    """Whether what two documents say is as similar as params ask: as a whole, or each part."""
    said, said_ = (_said(*task.shards.locate(each), by_turn) for each in (document, other))
    if len(said) != len(said_):
        return False
    names = [task.shards.source(each) for each in (document, other)]
    common = [task.common[name] for name in dict.fromkeys(names) if name in task.common]
    if common:
        joined = np.concatenate(common)
        left = [[np.setdiff1d(part, joined) for part in each] for each in (said, said_)]
        if any(len(a) or len(b) for a, b in zip(*left, strict=True)):
            said, said_ = left
    limit = task.settings.duplicate_similarity
    return all(
        similarity(a, b) >= limit for a, b in zip(said, said_, strict=True) if len(a) or len(b)
    )


def _group(shard: pa.RecordBatch, row: int) -> set[int]:
    return {key for key in shard["keys"][row].as_py() if key & 3 == GROUP}


@lru_cache(maxsize=4096)
def _said(path: Path, row: int, by_turn: bool) -> list[np.ndarray]:
    said = compared_of(open_shard(path), row)
    return [shingles(text, signs=True) for text in (said if by_turn else ["\n".join(said)])]


def _write_entries(
    folder: Path, shards: Shards, common: dict[str, np.ndarray], settings: Preprocess
) -> list[Path]:
    """Scatter (hash, document) of every hash of every document over bucket files by hash."""
    paths = [folder / f"hashes-{n:03d}.bin" for n in range(_bucket_count(shards))]
    shift = np.uint64(64 - (len(paths) - 1).bit_length()) if len(paths) > 1 else None
    with Buckets(paths) as buckets:
        for path, source, start in tqdm(list(shards.each()), desc="hashes", disable=None):
            shard = open_shard(path)
            entries = _entries(shard, start, _bands(shard, common.get(source), settings))
            which = entries["hash"] >> shift if shift is not None else None
            buckets.append(entries, which)
    return paths


def _bands(
    shard: pa.RecordBatch, common: np.ndarray | None, settings: Preprocess
) -> tuple[np.ndarray, np.ndarray]:
    """The bands of a shard's documents, made again where something is common; and their counts."""
    if common is None or not len(shard):
        return shard["bands"].values.to_numpy(), np.diff(shard["bands"].offsets.to_numpy())
    texts = [words("\n".join(compared_of(shard, row))) for row in range(len(shard))]
    made = bands(texts, threshold(settings), common)
    return made.ravel(), np.full(len(shard), made.shape[1])


def _entries(shard: pa.RecordBatch, start: int, made: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """All hashes of a shard's documents with the documents' numbers."""
    numbers = np.arange(start, start + len(shard))
    keys = shard["keys"]
    content = shard["content"].to_numpy()
    compared = np.concatenate([content, made[0]]) & ~np.uint64(3) | np.uint64(COMPARE)
    hashes = np.concatenate([compared, keys.values.to_numpy()])
    entries = np.empty(len(hashes), _ENTRY)
    entries["hash"] = hashes
    each = [numbers, np.repeat(numbers, made[1]), np.repeat(numbers, np.diff(keys.offsets))]
    entries["document"] = np.concatenate(each)
    return entries


def _write_pairs(
    folder: Path, shards: Shards, buckets: Sequence[Path], rank: np.ndarray
) -> np.ndarray:
    """From each bucket the candidate pairs, scattered over files; returns what keys join.

    Each document is paired with the one of the highest rank and with its neighbour in rank: enough
    to find it if any of them resembles it, without comparing all with all.
    """
    count = min(len(shards.paths), MAX_FILES)
    paths = [folder / f"pairs-{n:03d}.bin" for n in range(count)]
    bounds = np.array(shards.starts)[
        np.linspace(0, len(shards.paths), len(paths) + 1).astype(int)[1:-1]
    ]
    joined = [np.zeros(0, RELATION)]
    with Buckets(paths) as files:
        for bucket in tqdm(buckets, desc="candidates", unit="bucket", disable=None):
            entries = np.fromfile(bucket, _ENTRY)
            kinds = entries["hash"] & np.uint64(3)
            pairs = candidate_pairs(entries[kinds == COMPARE], rank)
            files.append(pairs, np.searchsorted(bounds, pairs["document"], side="right"))
            joined += [_joined(entries[kinds == kind], kind, rank) for kind in (1, 2, 3)]
            bucket.unlink()
    return np.unique(np.concatenate(joined))


def ranks(shards: Shards, unused: Collection[str]) -> np.ndarray:
    """The place of each document in the order in which the first of two stays, int64[n]."""
    own, ids = shards.column("own"), shards.column("id")
    idle = np.isin(shards.sources, list(unused)).repeat(np.diff(shards.starts))
    by_split = np.array([_RANK[split] for split in range(len(_RANK))])[own]
    rank = np.empty(len(own), np.int64)
    rank[np.lexsort((np.arange(len(own)), ids, idle, by_split))] = np.arange(len(own))
    return rank


def candidate_pairs(entries: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Unique pairs (document, other), `other` of the higher rank, of entries that share a hash."""
    entries = entries[np.lexsort((rank[entries["document"]], entries["hash"]))]
    documents = entries["document"]
    if not len(entries):
        return np.zeros(0, _PAIR)
    first, leaders = _leaders(entries)
    neighbours = np.concatenate([documents[:1], documents[:-1]])
    pairs = np.empty((2, len(documents)), _PAIR)
    pairs["document"], pairs["other"] = documents, [leaders, neighbours]
    pairs = pairs[:, ~first].ravel()
    return np.unique(pairs[pairs["document"] != pairs["other"]])


def _joined(entries: np.ndarray, kind: int, rank: np.ndarray) -> np.ndarray:
    """Each document with the first that has the same key; not where too many begin alike."""
    if not len(entries):
        return np.zeros(0, RELATION)
    entries = entries[np.lexsort((rank[entries["document"]], entries["hash"]))]
    first, leaders = _leaders(entries)
    if kind == BEGINNING:
        number = np.cumsum(first) - 1
        first |= np.bincount(number)[number] > max(MANY, MANY_SHARE * len(rank))
    found = np.empty(len(entries), RELATION)
    found["document"], found["other"] = entries["document"], leaders
    found["kind"] = GROUPED if kind == GROUP else JOINED
    return found[~first & (entries["document"] != leaders)]


def _leaders(entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a new hash begins in sorted entries, bool[n], and the first document of each's hash."""
    hashes = entries["hash"]
    first = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    places = np.where(first, np.arange(len(entries)), 0)
    return first, entries["document"][np.maximum.accumulate(places)]


def _bucket_count(shards: Shards) -> int:
    """A power of two, so that a bucket of all hashes takes about BUCKET_BYTES."""
    if not shards.starts[-1]:
        return 1
    filled = next(path for n, path in enumerate(shards.paths) if shards.starts[n + 1])
    shard = open_shard(filled)
    each = 3 + len(shard["bands"][0])
    needed = shards.starts[-1] * each * _ENTRY.itemsize / BUCKET_BYTES
    return min(MAX_FILES, 1 << int(np.ceil(np.log2(max(needed, 1)))))
