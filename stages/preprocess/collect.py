"""The first pass over the data: each row of a row group goes the way of steps.py."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune.records import Row, read_group
from stages.preprocess.leaks import LeakIndex
from stages.preprocess.personal import treat
from stages.preprocess.shards import Counts, write_shard
from stages.preprocess.shingles import threshold
from stages.preprocess.steps import Document, Source, Step, way
from stages.preprocess.turns import Rejected

EXCERPT = 80  # characters of a document that is left out, for whoever looks for the reason
EXCERPTS = 3  # of a reason and shard


@dataclass(frozen=True)
class Collect:
    """A row group of a source, and the shard of documents to make of it."""

    path: Path
    source: Source
    rows: Path
    group: int
    leaks: Path | None


def collect(task: Collect) -> None:
    """Write the documents of a row group, and beside them what was left out."""
    counts = Counts()
    documents = list(_documents(task, counts))
    settings = task.source.settings
    found = [-1] * len(documents)
    if task.leaks:
        found = LeakIndex.read(task.leaks).find(documents, settings.duplicate_similarity)
    write_shard(task.path, documents, counts, threshold(settings), found)


def walk(document: Document, steps: list[Step], counts: Counts) -> Document | None:
    """The document at the end of its way, or None; what each step drops and mends is counted."""
    for step in steps:
        counts.seen[step.name] = counts.seen.get(step.name, 0) + 1
        try:
            document = step.function(document)
        except Rejected as rejected:
            text = "" if step.chosen else _excerpt(document, step, rejected.reason, counts)
            counts.rejected.append([step.name, rejected.reason, document.origin, text])
            return None
        if document.mended:
            mended = counts.mended.setdefault(step.name, {})
            for what, number in document.mended.items():
                mended[what] = mended.get(what, 0) + number
            document.mended.clear()
    return document


def _documents(task: Collect, counts: Counts) -> Iterator[Document]:
    steps, columns = way(task.source), set()
    for row in read_group(task.rows, task.group):
        counts.rows += 1
        columns.update(row.row)
        if document := walk(_begin(row, task.source.name), steps, counts):
            yield document
    counts.columns = sorted(columns)


def _begin(row: Row, source: str) -> Document:
    return Document(source, row.row, row.split, row.origin, row.license)


def _excerpt(document: Document, step: Step, reason: str, counts: Counts) -> str:
    """The beginning of what was left out, without personal data; "" behind the first few."""
    same = sum(each[:2] == [step.name, reason] for each in counts.rejected[-1_000:])
    if same >= EXCERPTS:
        return ""
    said = [turn[1] for turn in document.turns] or [f"{k}: {v}" for k, v in document.row.items()]
    text = " ".join(" ".join(said)[: 4 * EXCERPT].split()).encode("utf-8", "replace").decode()
    return _masked(text)[:EXCERPT]


def _masked(text: str) -> str:
    try:
        return treat(text, _MASK_ALL, {})
    except Rejected:
        return ""


class _MaskAll:
    """Settings that mask everything."""

    phone_regions = ("US", "GB")

    def __getattr__(self, name: str) -> str:
        return "mask"


_MASK_ALL = _MaskAll()
