"""Which split a document belongs to: its source's own, else by a hash of what it says."""

import hashlib
from collections.abc import Sequence

from finetune.params import Preprocess
from finetune.records import SPLITS
from finetune.text.words import utf8_words as words  # noqa: F401, for all that compares rows
from stages.preprocess.documents import Turn

TRAIN, VALIDATION, TEST = range(len(SPLITS))
LEAK = len(SPLITS)  # a text of preprocess.leak_files: compared with training, never written


def document_hash(turns: Sequence[Turn]) -> int:
    """64 bits of a document: equal for equal documents only."""
    return _hash("\x1e".join(f"{role}\x1f{text}" for role, text in turns).encode())


def question_hash(found: Sequence[bytes]) -> int:
    """64 bits of what must not be in two splits, by its words."""
    return _hash(b" ".join(found))


def choose_split(own: str, question: int, missing: Sequence[int], settings: Preprocess) -> int:
    """The split of a document by the hash of its question.

    The source's `own` split stays, but training rows also fill the splits that the source lacks
    (`missing`). The hash alone decides, so no document moves when others are added.
    """
    if own in SPLITS[1:]:
        return SPLITS.index(own)
    place = question / 2**64
    if TEST in missing and place < settings.test_share:
        return TEST
    if VALIDATION in missing and 0 <= place - settings.test_share < settings.validation_share:
        return VALIDATION
    return TRAIN


def missing_splits(own: Sequence[str]) -> list[int]:
    """The splits that a source with these splits of its own lacks."""
    return [number for number, name in enumerate(SPLITS) if name not in own]


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
