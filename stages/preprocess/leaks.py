"""Evaluation texts of the user's own (preprocess.leak_files): no training document may hold one.

A text is held by a document that has most of its runs of five words, however long the document is
(containment, not resemblance); a text of fewer words by a document that asks just that.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from finetune.params import Preprocess
from stages.fetch.readers import read
from stages.preprocess.identity import question_hash
from stages.preprocess.shingles import WORDS, runs_of, shingles
from stages.preprocess.splits import words
from stages.preprocess.steps import Document

SHORTEST_CHOICE = 13  # words of a text that is not the longest of its row: fewer are said anywhere


@dataclass(frozen=True)
class LeakIndex:
    """The runs of words of all texts, sorted, with the text of each; and equal questions."""

    runs: np.ndarray  # uint64[n]
    owners: np.ndarray  # int32[n]
    sizes: np.ndarray  # int32[texts]: runs of each text
    questions: np.ndarray  # uint64[texts], of the whole text
    places: list[str]

    @staticmethod
    @lru_cache(maxsize=1)
    def read(path: Path) -> "LeakIndex":
        """An index as `write_leaks` wrote it."""
        with np.load(path) as arrays:
            names = ("runs", "owners", "sizes", "questions")
            values = [arrays[name] for name in names]
        return LeakIndex(*values, json.loads(path.with_suffix(".json").read_text("utf-8")))

    def find(self, documents: Sequence[Document], least: float) -> list[int]:
        """For each document the text that it holds at least this share of, or -1."""
        asked = {int(each): number for number, each in enumerate(self.questions.tolist())}
        found = []
        for document in documents:
            keys = [asked[key] for key in document.keys if key in asked]
            found.append(keys[0] if keys else self._contained(document, least))
        return found

    def _contained(self, document: Document, least: float) -> int:
        runs = np.unique(runs_of(words("\n".join(document.compared))))
        low = np.searchsorted(self.runs, runs, side="left")
        high = np.searchsorted(self.runs, runs, side="right")
        hits = [self.owners[a:b] for a, b in zip(low, high, strict=True) if b > a]
        if not hits:
            return -1
        counts = np.bincount(np.concatenate(hits), minlength=len(self.sizes))
        share = counts / np.maximum(self.sizes, 1)
        best = int(share.argmax())
        return best if share[best] >= least else -1


def write_leaks(settings: Preprocess, folder: Path) -> Path | None:
    """Write the index of preprocess.leak_files; None where there is none."""
    LeakIndex.read.cache_clear()
    if not settings.leak_files:
        return None
    places, sets, questions = [], [], []
    for name in settings.leak_files:
        for text, place, longest in _texts(Path(name)):
            count = len(words(text))
            runs = count >= (WORDS if longest else SHORTEST_CHOICE)
            places.append(f"{name}:{place}")
            sets.append(shingles(text) if runs else np.zeros(0, np.uint64))
            questions.append(question_hash(text))
    owners = np.repeat(np.arange(len(sets)), [len(each) for each in sets]).astype(np.int32)
    runs = np.concatenate([np.zeros(0, np.uint64), *sets])
    order = np.argsort(runs, kind="stable")
    path = folder / "leaks.npz"
    path.with_suffix(".json").write_text(json.dumps(places), "utf-8")
    np.savez(
        path,
        runs=runs[order],
        owners=owners[order],
        sizes=np.array([len(each) for each in sets], np.int32),
        questions=np.array(questions, np.uint64),
    )
    return path


def leak_places(folder: Path) -> list[str]:
    """Where each text of the index in this folder is from."""
    path = folder / "leaks.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def _texts(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Each text of each row, its place, and whether it is the longest of the row."""
    if not path.is_file():
        raise ValueError(f"preprocess.leak_files names {path}, which is no file")
    with path.open("rb") as file:
        for record in read(file, path.name, Counter()):
            values = list(dict.fromkeys(v for v in _strings(record.row) if v.strip()))
            longest = max(values, key=len, default="")
            for text in values:
                yield text, record.place, text == longest


def _strings(value: Any) -> Iterator[str]:
    """Every text in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
