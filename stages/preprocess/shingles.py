"""How much two texts resemble each other: word 5-grams, and MinHash bands to find candidates.

MinHash and banding as in Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3;
the permutations are datasketch's.
"""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from datasketch import MinHash

from finetune.params import Preprocess
from finetune.text.words import words as signed_words
from stages.preprocess.splits import words

WORDS = 5
PERMUTATIONS = 128
RECALL = 0.99  # of pairs exactly as similar as the limit; the more alike, the nearer to 1
_SCHEME = "affine32"
_BASE = np.uint64(0x9E3779B97F4A7C15)


def shingles(text: str, signs: bool = False) -> np.ndarray:
    """Hashes of the runs of five words in a text, uint64[n], sorted, each once. With `signs` those
    that change what is meant are words too: "12 + 5" is not "12 - 5", C++ not C#."""
    found = [word.encode() for word in signed_words(text, signs=True)] if signs else words(text)
    return np.unique(_runs([found])[0])


def runs_of(found: Sequence[bytes]) -> np.ndarray:
    """Hashes of the runs of five of these words, uint64[n], in order."""
    return _runs([found])[0]


def threshold(settings: Preprocess) -> float | None:
    """The similarity from which on documents are near-duplicates; None where none are sought."""
    return settings.duplicate_similarity if settings.near_duplicates else None


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of two sets as `shingles` gives them: shared over all, 0 to 1."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def bands(
    texts: Sequence[Sequence[bytes]], threshold: float, common: np.ndarray | None = None
) -> np.ndarray:
    """Hashes uint64[n, b] of the words of n texts; two texts that are as alike as the threshold
    share at least one of their b with a probability of RECALL. `common` runs are left out."""
    count, rows = shape(threshold)
    runs = [each if common is None else without(each, common) for each in _runs(texts)]
    signatures = [_signature(each)[: count * rows] for each in runs]
    values = np.array(signatures, dtype=np.uint64).reshape(len(texts) * count, rows)
    numbers = np.tile(np.arange(count, dtype=np.uint64), len(texts))
    return _mix(np.column_stack([numbers, values])).reshape(len(texts), count)


def without(runs: np.ndarray, common: np.ndarray) -> np.ndarray:
    """The runs that are not common; all of them where there is no other."""
    rest = runs[~np.isin(runs, common)]
    return rest if len(rest) else runs


@lru_cache
def shape(threshold: float) -> tuple[int, int]:
    """The number of bands b and rows r of each: the longest rows, so the fewest false candidates,
    with 1 - (1 - s^r)^b >= RECALL at similarity s = threshold."""
    for rows in range(PERMUTATIONS, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return PERMUTATIONS, 1


def _runs(texts: Sequence[Sequence[bytes]]) -> list[np.ndarray]:
    """Hashes of the runs of five words of each text, uint64; of all its words if they are fewer."""
    hashes = [[*map(zlib.crc32, each), *[0] * (WORDS - len(each))] for each in texts]
    lengths = np.array([len(each) for each in hashes])
    joined = np.fromiter(chain.from_iterable(hashes), np.uint64, lengths.sum())
    runs = _mix(np.lib.stride_tricks.sliding_window_view(joined, WORDS))
    ends = np.cumsum(lengths)
    return [runs[end - n : end - WORDS + 1] for end, n in zip(ends, lengths, strict=True)]


def _signature(runs: np.ndarray) -> np.ndarray:
    minhash = MinHash(PERMUTATIONS, hashfunc=int, permutations=_permutations(), scheme=_SCHEME)
    minhash.update_batch((runs >> np.uint64(32)).tolist())
    return minhash.hashvalues


@lru_cache
def _permutations() -> tuple[np.ndarray, np.ndarray]:
    return MinHash(PERMUTATIONS, scheme=_SCHEME).permutations


def _mix(rows: np.ndarray) -> np.ndarray:
    """One hash for each row of uint64[n, k], by multiplying and folding."""
    mixed = np.full(len(rows), _BASE)
    for column in rows.T:
        mixed = (mixed ^ column) * _BASE
        mixed ^= mixed >> np.uint64(29)
    return mixed * _BASE
