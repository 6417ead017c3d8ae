"""Evaluation texts of the user's own, which training documents are compared with."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.params import Preprocess
from stages.fetch.readers import read
from stages.preprocess.clean import normalise
from stages.preprocess.collect import Counts, Document, threshold, write_part
from stages.preprocess.documents import Rejected
from stages.preprocess.splits import LEAK, question_hash, words
from stages.preprocess.turns import Turn

ROWS_PER_PART = 1_000


def write_leak_parts(settings: Preprocess, folder: Path) -> list[Path]:
    """The texts of preprocess.leak_files as parts of documents, as `collect` makes them."""
    documents, paths = [], []
    for name in settings.leak_files:
        for text, place in _texts(Path(name)):
            found = words(text)
            question = question_hash(found)
            origin = f"{name}:{place}"
            documents.append(Document([Turn("text", text)], question, found, LEAK, origin, ""))
            if len(documents) == ROWS_PER_PART:
                paths.append(_write(documents, len(paths), settings, folder))
                documents = []
    if documents:
        paths.append(_write(documents, len(paths), settings, folder))
    return paths


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Each text of each row by itself, and all of a row as one, as a document would hold them."""
    if not path.is_file():
        raise ValueError(f"preprocess.leak_files names {path}, which is no file")
    with path.open("rb") as file:
        for record in read(file, path.name, Counter()):
            values = [value for value in _strings(record.row) if value.strip()]
            for text in dict.fromkeys([*values, "\n".join(values)]):
                try:
                    yield normalise(text), record.place
                except Rejected:
                    continue


def _strings(value: Any) -> Iterator[str]:
    """Every text in a row, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _write(documents: list[Document], number: int, settings: Preprocess, folder: Path) -> Path:
    path = folder / f"leaks-{number:06d}.arrow"
    write_part(path, documents, Counts(), threshold(settings))
    return path
