"""The held-out rows that are scored: their tokens, and their texts for a person."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from finetune.text.tokens import Example, TokenRows


@dataclass(frozen=True)
class Question:
    """One test row. Without a `question` (causal text) only its loss is scored."""

    row: Example
    question: str
    reference: str
    document: str = ""
    group: str = ""
    label: str = ""

    def prompt(self) -> list[int]:
        """The tokens before the last supervised span: what the model answers."""
        return self.row.input_ids[: self.row.spans[-2]].tolist()


def read_questions(folder: Path, max_rows: int | None) -> list[Question]:
    """At most `max_rows` rows of the test split.

    They are drawn by the hash of their ids, so that a few rows more in the data change few of them,
    and come in that order: any first few are a random sample of all sources.
    Raises ValueError for an empty split, or where texts.jsonl does not belong to the tokens.
    """
    rows = TokenRows(folder)
    lines = (folder / "texts.jsonl").read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line) for line in lines if line]
    if not len(rows):
        raise ValueError(f"{folder} has no row; raise preprocess.test_share or add data")
    if len(texts) != len(rows):
        raise ValueError(
            f"{folder}/texts.jsonl has {len(texts)} rows, the tokens have {len(rows)}: "
            "run `dvc repro --force preprocess`"
        )
    order = sorted(range(len(rows)), key=lambda at: _draw(texts[at]["id"]))
    return [_question(folder, rows[at], texts[at]) for at in order[:max_rows]]


def _draw(id: str) -> str:
    """A place in the drawing order that depends on nothing but the id."""
    return hashlib.sha256(id.encode()).hexdigest()


def _question(folder: Path, row: Example, text: dict) -> Question:
    if row.id != text["id"]:
        raise ValueError(
            f"{folder}/texts.jsonl has {text['id']} where the tokens have {row.id}: "
            "run `dvc repro --force preprocess`"
        )
    if not len(row.supervised()):
        raise ValueError(f"{folder}: row {row.id} has no supervised token, so nothing to score")
    document = _text(text.get("document")) or text["id"]
    group, label = _text(text.get("group")) or document, _text(text.get("label"))
    return Question(row, text["question"], text["reference"], document, group, label)


def _text(value: object) -> str:
    """A column's value as text: a label may be the number 0."""
    return "" if value is None else str(value)
