"""Which split a document belongs to: its source's own, else by a hash of which row it is."""

import hashlib
from collections.abc import Sequence

import numpy as np

from finetune.params import Preprocess
from finetune.records import SPLITS
from finetune.text.words import utf8_words as words  # noqa: F401, for all that compares rows
from stages.preprocess.turns import Turn, said_beside

TRAIN, VALIDATION, TEST = range(len(SPLITS))


def document_hash(turns: Sequence[Turn]) -> int:
    """64 bits of a document: equal for equal documents only."""
    said = (f"{turn[0]}\x1f{turn[1]}{said_beside(turn)}" for turn in turns)
    return _hash("\x1e".join(said).encode())


def choose_splits(
    identity: np.ndarray,
    own: np.ndarray,
    missing: np.ndarray,
    cluster: np.ndarray,
    settings: Preprocess,
) -> np.ndarray:
    """The split of each document, int8[n].

    `identity` uint64[n] draws it, `own` int8[n] is what the source says (0: training, or nothing),
    `missing` bool[n, splits] are the splits that its source lacks, `cluster` int64[n] numbers what
    must share a split, in [0, n). Evaluation rows of a source stay where they are. The others of a
    cluster go to its evaluation split, if all their sources lack that; else where the least of
    their identities falls, among the splits that they all lack. No order of rows matters.
    """
    least = np.full(len(own), np.iinfo(np.uint64).max)
    np.minimum.at(least, cluster, identity)
    place = _scatter(least)[cluster] / 2.0**64
    lacked = np.ones((len(own), len(SPLITS)), bool)
    free = own == TRAIN
    np.logical_and.at(lacked, cluster[free], missing[free])
    held = np.zeros(len(own), np.int8)  # the evaluation split that a cluster has already
    np.maximum.at(held, cluster, own)
    held, lacked = held[cluster], lacked[cluster]
    to_test = lacked[:, TEST] & (place < settings.test_share)
    beyond = place - settings.test_share
    to_validation = lacked[:, VALIDATION] & (beyond >= 0) & (beyond < settings.validation_share)
    drawn = np.select([to_test, to_validation], [TEST, VALIDATION], TRAIN)
    joined = np.where(lacked[np.arange(len(own)), held], held, TRAIN)
    return np.where(free, np.where(held > 0, joined, drawn), own).astype(np.int8)


def clusters(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest number in each document's cluster, int64[count]; `pairs` int64[m, 2] are joined.

    Labels are passed along the pairs and then along the labels, until nothing changes.
    """
    labels = np.arange(count)
    while len(pairs):
        before = labels.copy()
        least = np.minimum(labels[pairs[:, 0]], labels[pairs[:, 1]])
        for side in (0, 1):
            np.minimum.at(labels, labels[pairs[:, side]], least)
            np.minimum.at(labels, pairs[:, side], least)
        labels = labels[labels]
        if (labels == before).all():
            break
    return labels


def _scatter(values: np.ndarray) -> np.ndarray:
    """uint64[n] spread evenly: the least of many is small, and would favour one split
    (the finaliser of SplitMix64: Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def missing_splits(own: Sequence[str]) -> list[int]:
    """The splits that a source with these splits of its own lacks."""
    return [number for number, name in enumerate(SPLITS) if name not in own]


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
