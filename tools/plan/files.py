"""An estimate of a run's examples from the data files on this machine, in seconds.

Files are read by the readers of the fetch stages and filled into the templates of params.yaml. What
cleaning, duplicates and leaks take away is not known here.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finetune.params import Params
from stages.fetch.files import WARC, find_parts
from stages.fetch.readers import HTML, read
from stages.fetch.sources import Part
from stages.preprocess.documents import build_document, parse_documents
from stages.preprocess.mixture import choose
from stages.preprocess.turns import Rejected
from tools.plan.findings import Rows

# Rows of a file that are read; the rest is counted by its bytes.
MOST_ROWS = 20_000
# A rule of thumb for English text and byte-pair vocabularies, where no tokenizer is here.
CHARACTERS_PER_TOKEN = 4
PAGES = (WARC, *HTML)  # whose text has to be found in them first


class Unreadable(ValueError):
    """A source of which nothing can be said before `preprocess`."""


@dataclass(frozen=True)
class Sum:
    """Examples, and tokens in all."""

    rows: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.rows + other.rows, self.tokens + other.tokens)

    def __mul__(self, factor: float) -> "Sum":
        return Sum(self.rows * factor, self.tokens * factor)


def count_files(params: Params, root: Path, tokenizer: Path | None) -> tuple[Rows, Rows]:
    """Training and validation examples. `tokenizer` is a tokenizer.json; None: by characters.

    Raises Unreadable, with the source, where a source cannot be counted.
    """
    count, settings = _counter(tokenizer), params.preprocess
    held = {
        "train": 1 - settings.validation_share - settings.test_share,
        "validation": settings.validation_share,
    }
    sums: dict[str, dict[str, Sum]] = {split: {} for split in held}
    for name in params.data.files:
        try:
            found = _count_source(params, name, root, count)
        except (ValueError, OSError) as error:
            raise Unreadable(str(error)) from None
        for split, share in held.items():
            sums[split][name] = found.get(split, Sum()) + found.get("", Sum()) * share
    whole = sum(sums["validation"].values(), Sum())
    validation = Rows(round(whole.rows), round(whole.tokens), settings.max_length)
    return _mix(params, sums["train"]), validation


def _mix(params: Params, of: dict[str, Sum]) -> Rows:
    """The rows that the mixture takes, by the code that takes them."""
    names = params.data.names()
    counts = [round(of[name].rows) for name in names]
    means = np.array([of[name].tokens / max(of[name].rows, 1) for name in names])
    sources = np.repeat(np.arange(len(names)), counts)
    tokens = means[sources]
    by_tokens = params.preprocess.mixture_unit == "tokens"
    weights = tokens if by_tokens else np.ones(len(sources))
    try:
        rows, _ = choose(params, sources, np.arange(len(sources)), weights)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    return Rows(len(rows), round(tokens[rows].sum()), params.preprocess.max_length)


def _counter(tokenizer: Path | None) -> Callable[[str], float]:
    """A function from a text to its tokens."""
    if tokenizer is None:
        return lambda text: len(text) / CHARACTERS_PER_TOKEN
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def _count_source(
    params: Params, name: str, root: Path, count: Callable[[str], float]
) -> dict[str, Sum]:
    """Split, "" where the source has none of its own, to its examples."""
    source = params.data.files[name]
    parts = find_parts(replace(source, path=str(root / source.path)), Counter())
    if any(part.name.lower().endswith(PAGES) for part in parts):
        raise Unreadable(f"{name} is of web pages")
    found: dict[str, Sum] = {}
    for part in parts:
        found[part.split] = found.get(part.split, Sum()) + _count_part(params, name, part, count)
    return found


def _count_part(params: Params, name: str, part: Part, count: Callable[[str], float]) -> Sum:
    """The examples of one file: of its first rows, and as many as that in the rest."""
    found, size = Sum(), part.proof["bytes"]
    with part.open() as file:
        records = read(file, part.name, Counter(), (), part.encoding)
        for number, each in enumerate(_examples(params, name, records, count), start=1):
            found += each
            if number == MOST_ROWS:
                return found * (size / max(1, min(size, file.tell())))
    return found


def _examples(
    params: Params, name: str, records: Iterator, count: Callable[[str], float]
) -> Iterator[Sum]:
    """The examples of each row; none of a row that templates refuse."""
    document, longest = params.documents[name], params.preprocess.max_length
    templates = parse_documents(document.templates(), name)
    asked = f"{document.system or ''}{document.instruction or ''}"
    around = count(asked) if asked and params.preprocess.mode != "causal" else 0
    for record in records:
        try:
            turns = build_document(record.row, templates)
        except Rejected:
            yield Sum()
            continue
        tokens = around + sum(count(turn[1]) for turn in turns)
        if params.preprocess.mode == "causal":  # cut into pieces
            yield Sum(max(1, -(-int(tokens) // longest)), tokens)
        else:
            yield Sum(1, min(tokens, longest))
