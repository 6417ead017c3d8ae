"""From fetched rows to cleaned documents, one row group at a time: the first pass over the data."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from finetune.params import Preprocess
from finetune.records import Row, read_group
from stages.preprocess.clean import clean_turns
from stages.preprocess.documents import Rejected, Template, Turn, build_document
from stages.preprocess.extract import extract_row, is_captured
from stages.preprocess.shingles import bands
from stages.preprocess.splits import choose_split, document_hash, question_hash, words

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("id", pa.uint64()),  # of the whole document
        ("question", pa.uint64()),  # of what must not be in two splits
        ("split", pa.int8()),
        ("origin", pa.string()),
        ("license", pa.string()),
        ("roles", _TEXTS),
        ("texts", _TEXTS),
        ("more", _TEXTS),  # JSON, "" where a turn is its text alone
        ("bands", pa.list_(pa.uint64())),
    ]
)


@dataclass(frozen=True)
class Collect:
    """A row group of a source, and the file of documents to make of it."""

    path: Path
    source: str
    rows: Path
    group: int
    templates: dict[str, Template]
    cut: str | None  # the column of a prompt that may be shortened
    missing: list[int]  # splits that the source lacks
    settings: Preprocess


@dataclass(frozen=True)
class Document:
    """A cleaned document, with the hash of its question, its words and its split."""

    turns: list[Turn]
    question: int
    words: list[bytes]
    split: int
    origin: str
    license: str


@dataclass
class Counts:
    """What became of the rows of a part."""

    rows: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, str]] = field(default_factory=list)  # reason, origin


def collect(task: Collect) -> None:
    """Write the documents of a row group, and beside them what was left out."""
    counts = Counts()
    documents = list(_documents(task, counts))
    settings = task.settings
    write_part(task.path, documents, counts, threshold(settings))


def write_part(path: Path, documents: list[Document], counts: Counts, like: float | None) -> None:
    """Write documents as an Arrow file with their counts in its metadata. Atomic.

    `like` is the similarity that near-duplicates are looked for with, None where they are not.
    """
    schema = SCHEMA.with_metadata({"counts": json.dumps(vars(counts))})
    columns = [
        pa.array([document_hash(each.turns) for each in documents], pa.uint64()),
        pa.array([each.question for each in documents], pa.uint64()),
        pa.array([each.split for each in documents], pa.int8()),
        pa.array([each.origin for each in documents], pa.string()),
        pa.array([each.license for each in documents], pa.string()),
        pa.array([[role for role, _ in each.turns] for each in documents], _TEXTS),
        pa.array([[text for _, text in each.turns] for each in documents], _TEXTS),
        pa.array([[write_more(turn) for turn in each.turns] for each in documents], _TEXTS),
        _lists(_bands(documents, like)),
    ]
    partial = path.with_suffix(".partial")
    with pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    partial.rename(path)


def read_part(path: Path) -> tuple[pa.RecordBatch, Counts]:
    """The documents of a part, memory-mapped, and what became of its rows."""
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    counts = json.loads(file.schema.metadata[b"counts"])
    return file.get_batch(0), Counts(**{**counts, "masked": Counter(counts["masked"])})


def turns_of(batch: pa.RecordBatch, row: int) -> list[Turn]:
    """The turns of one document of a part."""
    columns = (batch[name][row].as_py() for name in ("roles", "texts", "more"))
    return [
        Turn(role, text, json.loads(more) if more else None)
        for role, text, more in zip(*columns, strict=True)
    ]


def write_more(turn: Turn) -> str:
    """What belongs to a turn beside its text, as JSON; "" where there is nothing."""
    more = getattr(turn, "more", None)
    return json.dumps(more, ensure_ascii=False, sort_keys=True) if more else ""


def full_text(turns: Sequence[Turn]) -> str:
    """All that a document says, which near-duplicates are compared by."""
    return "\n".join(text for _, text in turns)


def _documents(task: Collect, counts: Counts) -> Iterator[Document]:
    for raw in read_group(task.rows, task.group):
        counts.rows += 1
        try:
            yield _document(raw, task, counts)
        except Rejected as rejected:
            counts.rejected.append((rejected.reason, raw.origin))


def _document(raw: Row, task: Collect, counts: Counts) -> Document:
    row = raw.row
    if is_captured(row, task.rows.parent):
        selectors = task.settings.selectors.get(task.source, {})
        row = extract_row(row, task.rows.parent, selectors)
    turns = build_document(row, task.templates, task.cut)
    turns = clean_turns(turns, task.settings, counts.masked)
    found = words(full_text(turns))
    # Of a single exchange the question alone, so that no other answer to it is in another split.
    exchange = [role for role, _ in turns] == ["user", "assistant"]
    question = question_hash(words(turns[0][1]) if exchange else found)
    split = choose_split(raw.split, question, task.missing, task.settings)
    return Document(turns, question, found, split, raw.origin, raw.license)


def _bands(documents: Sequence[Document], like: float | None) -> np.ndarray:
    if like is None or not documents:
        return np.zeros((len(documents), 0), np.uint64)
    return bands([each.words for each in documents], like)


def threshold(settings: Preprocess) -> float | None:
    """The similarity from which on documents are near-duplicates; None where none are sought."""
    return settings.duplicate_similarity if settings.near_duplicates else None


def _lists(values: np.ndarray) -> pa.ListArray:
    """uint64[n, k] as n lists of k."""
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, values.ravel())
