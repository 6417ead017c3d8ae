"""Which documents are copies of others, or nearly so, within and across sources and splits.

Documents that share a hash are candidates: that of the whole document, of its question, and the
MinHash bands of its words. The hashes of all documents go to bucket files on disk, so that memory
holds one bucket at a time; candidates are then compared word by word. Of two that are alike the one
of the higher rank stays: test before validation before leak files before training, then the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from finetune.params import Preprocess
from stages.preprocess.buckets import MAX_FILES, Buckets
from stages.preprocess.collect import full_text, turns_of
from stages.preprocess.parts import Parts, open_part
from stages.preprocess.shingles import shingles, similarity
from stages.preprocess.splits import LEAK, TEST, TRAIN, VALIDATION
from stages.preprocess.work import Work

REASONS = ("", "duplicate", "near_duplicate", "leak", "near_leak", "leak_file")
DUPLICATE, NEAR_DUPLICATE, LEAKED, NEAR_LEAK, LEAK_FILE = range(1, len(REASONS))
_LEAKS = {DUPLICATE: LEAKED, NEAR_DUPLICATE: NEAR_LEAK}  # of an evaluation document
BUCKET_BYTES = 64_000_000
_RANK = {TEST: 0, VALIDATION: 1, LEAK: 2, TRAIN: 3}
_ENTRY = np.dtype([("hash", "<u8"), ("place", "<i8")])
_PAIR = np.dtype([("place", "<i8"), ("other", "<i8")])
_VERDICT = np.dtype([("document", "<i8"), ("other", "<i8"), ("reason", "<i8")])
# place = rank << 48 | document: sorting by it puts the one that stays first
_NUMBER = (1 << 48) - 1


@dataclass(frozen=True)
class Compare:
    """A file of candidate pairs, and the file of verdicts to make of it."""

    path: Path
    pairs: Path
    parts: Parts
    settings: Preprocess


def find_duplicates(work: Work, parts: Parts, settings: Preprocess) -> np.ndarray:
    """Verdicts [document, other, reason], sorted by document: those to leave out, and for whom."""
    folder = work.folder / "duplicates"
    folder.mkdir(exist_ok=True)
    done = folder / "pairs.done"
    if not done.exists():
        _write_pairs(folder, parts, _write_entries(folder, parts))
        done.touch()
    tasks = [
        Compare(pairs.with_suffix(".npy"), pairs, parts, settings)
        for pairs in sorted(folder.glob("pairs-*.bin"))
    ]
    work.run("compare", compare, tasks)
    verdicts = [np.load(task.path) for task in tasks]
    return np.sort(np.concatenate([np.zeros(0, _VERDICT), *verdicts]), order="document")


def leak_share(parts: Parts, verdicts: np.ndarray, limit: float) -> float:
    """The share of training documents that resemble evaluation documents; they are left out.

    Raises ValueError above the limit, with the first of them.
    """
    leaks = verdicts[np.isin(verdicts["reason"], (LEAKED, NEAR_LEAK, LEAK_FILE))]
    trained = sum(int((open_part(path)["split"].to_numpy() == TRAIN).sum()) for path in parts.paths)
    share = len(leaks) / trained if trained else 0.0
    if share > limit:
        first = [f"{parts.origin(a)} resembles {parts.origin(b)}" for a, b, _ in leaks[:3].tolist()]
        raise ValueError(
            f"{len(leaks)} of {trained} training documents ({share:.1%}) resemble evaluation "
            f"documents, more than preprocess.max_leak_share {limit}: {'; '.join(first)}; mend the "
            "data's splits, or raise the limit: they are left out of training in any case"
        )
    return share


def compare(task: Compare) -> None:
    """Judge each candidate pair; a document is left out for the first other that it resembles."""
    pairs = np.unique(np.fromfile(task.pairs, _PAIR))
    verdicts: list[tuple[int, int, int]] = []
    for place, other in pairs.tolist():
        document = place & _NUMBER
        if verdicts and verdicts[-1][0] == document:
            continue
        if reason := _judge(place, other, task):
            verdicts.append((document, other & _NUMBER, reason))
    partial = task.path.with_suffix(".partial.npy")
    np.save(partial, np.array(verdicts, _VERDICT))
    partial.rename(task.path)


def _judge(place: int, other: int, task: Compare) -> int:
    """The reason to leave out the document at `place` for the other one, or 0."""
    mine, theirs = (task.parts.locate(each & _NUMBER) for each in (place, other))
    across = place >> 48 != other >> 48
    if _equal("id", mine, theirs) or (across and _equal("question", mine, theirs)):
        kind = DUPLICATE
    elif task.settings.near_duplicates and (
        similarity(_shingles(*mine), _shingles(*theirs)) >= task.settings.duplicate_similarity
    ):
        kind = NEAR_DUPLICATE
    else:
        return 0
    if not across or place >> 48 != _RANK[TRAIN]:
        return kind
    return LEAK_FILE if other >> 48 == _RANK[LEAK] else _LEAKS[kind]


def _write_entries(folder: Path, parts: Parts) -> list[Path]:
    """Scatter (hash, place) of every document over bucket files by hash."""
    paths = [folder / f"hashes-{n:03d}.bin" for n in range(_bucket_count(parts))]
    shift = np.uint64(64 - (len(paths) - 1).bit_length()) if len(paths) > 1 else None
    with Buckets(paths) as buckets:
        for number, path in enumerate(tqdm(parts.paths, desc="hashes", unit="part", disable=None)):
            entries = _entries(open_part(path), parts.starts[number])
            which = entries["hash"] >> shift if shift is not None else None
            buckets.append(entries, which)
    return paths


def _entries(part: pa.RecordBatch, start: int) -> np.ndarray:
    """All hashes of a part's documents with the documents' places."""
    splits = part["split"].to_numpy()
    rank = np.array([_RANK[split] for split in range(len(_RANK))])[splits]
    places = rank << 48 | np.arange(start, start + len(part))
    values = part["bands"].values.to_numpy()
    each = len(values) // len(part) if len(part) else 0
    hashes = [part["id"].to_numpy(), part["question"].to_numpy(), values]
    entries = np.empty(len(part) * (2 + each), _ENTRY)
    entries["hash"] = np.concatenate(hashes)
    entries["place"] = np.concatenate([places, places, np.repeat(places, each)])
    return entries


def _write_pairs(folder: Path, parts: Parts, buckets: Sequence[Path]) -> None:
    """From each bucket the pairs that share a hash, scattered over files by the one that may go.

    Each document is paired with the one of the highest rank and with its neighbour in rank: enough
    to find it if any of them resembles it, without comparing all with all.
    """
    paths = [folder / f"pairs-{n:03d}.bin" for n in range(min(len(parts.paths), MAX_FILES))]
    bounds = np.array(parts.starts)[
        np.linspace(0, len(parts.paths), len(paths) + 1).astype(int)[1:-1]
    ]
    with Buckets(paths) as files:
        for bucket in tqdm(buckets, desc="candidates", unit="bucket", disable=None):
            pairs = candidate_pairs(np.fromfile(bucket, _ENTRY))
            documents = pairs["place"] & _NUMBER
            files.append(pairs, np.searchsorted(bounds, documents, side="right"))
            bucket.unlink()


def candidate_pairs(entries: np.ndarray) -> np.ndarray:
    """Unique pairs (place, other) with other < place, of entries that share a hash."""
    entries = np.sort(entries, order=("hash", "place"))
    hashes, places = entries["hash"], entries["place"]
    if not len(entries):
        return np.zeros(0, _PAIR)
    first = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    leaders = places[np.maximum.accumulate(np.where(first, np.arange(len(places)), 0))]
    neighbours = np.concatenate([places[:1], places[:-1]])
    pairs = np.empty((2, len(places)), _PAIR)
    pairs["place"], pairs["other"] = places, [leaders, neighbours]
    pairs = pairs[:, ~first].ravel()
    return np.unique(pairs[pairs["place"] != pairs["other"]])


def _bucket_count(parts: Parts) -> int:
    """A power of two, so that a bucket of all hashes takes about BUCKET_BYTES."""
    if not parts.starts[-1]:
        return 1
    filled = next(path for n, path in enumerate(parts.paths) if parts.starts[n + 1])
    part = open_part(filled)
    each = 2 + len(part["bands"][0])
    needed = parts.starts[-1] * each * _ENTRY.itemsize / BUCKET_BYTES
    return min(MAX_FILES, 1 << int(np.ceil(np.log2(max(needed, 1)))))


@lru_cache(maxsize=4096)
def _shingles(path: Path, row: int) -> np.ndarray:
    return shingles(full_text(turns_of(open_part(path), row)))


def _equal(column: str, mine: tuple[Path, int], theirs: tuple[Path, int]) -> bool:
    (path, row), (other, at) = mine, theirs
    return open_part(path)[column][row] == open_part(other)[column][at]
