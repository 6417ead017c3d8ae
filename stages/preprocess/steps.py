"""The way of a row: `way` is the list of steps, and its order is the order of the work.

A step takes a `Document` and gives it back, changed or not, or raises `Rejected` with a reason. It
counts in `document.mended` what it changes. Steps of the user's own, and filters of language and
quality, are named in `documents.NAME.steps`; custom.py says what may be one.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from finetune.params import Preprocess
from stages.preprocess import custom, identity
from stages.preprocess.clean import normalise
from stages.preprocess.documents import Template, build_document, is_captured
from stages.preprocess.personal import treat
from stages.preprocess.turns import Rejected, Turn

_LICENSES = ("license", "licence", "license_id", "licenses", "licences")


@dataclass(frozen=True)
class Source:
    """What params say about the rows of a source."""

    name: str
    folder: Path
    templates: dict[str, Template]
    cut: str | None
    group: Template | None
    label: Template | None
    identity: tuple[str, ...]  # columns; none means those of the templates
    normalise: str
    steps: tuple[tuple[str, dict[str, Any]], ...]  # dotted names and options
    settings: Preprocess


@dataclass
class Document:
    """A row on its way to the model: its columns at first, then the turns made of them."""

    source: str
    row: dict[str, Any]
    split: str  # the source's own, "" where it has none
    origin: str
    license: str
    turns: list[Turn] = field(default_factory=list)
    id: int = 0  # hash of the raw values that are used
    identity: int = 0  # hash of what draws its split
    group: str = ""
    label: str = ""
    keys: list[int] = field(default_factory=list)  # hashes; one in common: the same split
    compared: list[str] = field(default_factory=list)  # what is said, as it came
    mended: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Step:
    """A step by name. `chosen` ones leave out what somebody asked to leave out; what the others
    leave out counts towards preprocess.max_rejected_share."""

    name: str
    function: Callable[[Document], Document]
    chosen: bool = False


def way(source: Source) -> list[Step]:
    """The way of a source's rows, in order. Raises ValueError for a step that cannot be one."""
    on_rows, on_documents = custom.load_steps(source.steps, source.name)
    return [
        Step("license", take_license),
        Step("page", partial(read_page, source)),
        Step("identity", partial(identify, source)),
        *(Step(name, function, chosen=True) for name, function in on_rows),
        Step("template", partial(fill_templates, source)),
        Step("likeness", partial(note_likeness, source)),
        Step("normalise", partial(normalise_turns, source)),
        *(Step(name, function, chosen=True) for name, function in on_documents),
        Step("length", partial(check_length, source)),
        Step("personal", partial(treat_personal, source), chosen=True),
    ]


def take_license(document: Document) -> Document:
    """The row's own licence, where it has one, goes before that of its source."""
    for columns in (document.row, document.row.get("metadata"), document.row.get("meta")):
        for name, value in columns.items() if isinstance(columns, dict) else ():
            if name.lower() in _LICENSES and (said := _license_text(value)):
                document.license = said
                document.mended["own_license"] += 1
                return document
    return document


def read_page(source: Source, document: Document) -> Document:
    """The columns of the page that a row of a capture stands for."""
    if is_captured(document.row, source.folder):
        # Here, because its libraries are a sixth of the start of a run without pages.
        from stages.preprocess.extract import extract_row

        selectors = source.settings.selectors.get(source.name, {})
        document.row = extract_row(document.row, source.folder, selectors)
    return document


def identify(source: Source, document: Document) -> Document:
    """Which row this is, from the values as they came: nothing behind here moves its split."""
    columns = identity.columns_of(source.templates.values())
    document.id = identity.hash_values(document.row, columns)
    chosen = source.identity or (("url",) if is_captured(document.row, source.folder) else ())
    document.identity = document.id
    if any(document.row.get(column) not in (None, "") for column in chosen):
        document.identity = identity.hash_values(document.row, chosen)
        document.keys.append(identity.key_of("identity", document.identity))
    return document


def fill_templates(source: Source, document: Document) -> Document:
    """The turns, the group and the label of a row."""
    document.turns = build_document(document.row, source.templates, source.cut)
    document.label = _fill(source.label, document.row)
    document.group = _fill(source.group, document.row)
    if document.group:
        document.identity = identity.hash_text(f"{source.name}\x1f{document.group}")
        document.keys.append(identity.key_of("group", document.identity))
    return document


def note_likeness(source: Source, document: Document) -> Document:
    """What must not be in two splits: the question, a beginning of a conversation, the words."""
    document.compared = identity.compared_texts(document.row, source.templates, document.turns)
    document.keys += identity.question_keys(
        document.compared, document.turns, "messages" in source.templates
    )
    return document


def normalise_turns(source: Source, document: Document) -> Document:
    """Every text written one way, as documents.NAME.normalise says."""
    kind = source.normalise
    document.turns = _each(document, lambda text, mended: normalise(text, kind, mended))
    for turn in document.turns:
        if not (turn[1].strip() or turn.more.get("tool_calls") or turn[0] == "tool"):
            raise Rejected("empty_text")
    return document


def check_length(source: Source, document: Document) -> Document:
    """Between preprocess.min_characters and max_characters over all turns."""
    characters = sum(len(text) for _, text in document.turns)
    if characters < source.settings.min_characters:
        raise Rejected("too_short")
    if characters > source.settings.max_characters:
        raise Rejected("too_long")
    return document


def treat_personal(source: Source, document: Document) -> Document:
    """Personal data and keys kept, masked, or a reason to leave the document out."""
    settings = source.settings
    document.turns = _each(document, lambda text, masked: treat(text, settings, masked))
    document.label = treat(document.label, settings, Counter())  # it names a part of the metrics
    return document


def _each(document: Document, change: Callable[[str, Counter[str]], str]) -> list[Turn]:
    """Every text changed, and what is beside it; counted is what is said, once."""
    changed = []
    for turn in document.turns:
        text = change(turn[1], document.mended)
        if turn.more:
            more = turn.map(lambda each: change(each, Counter())).more
            changed.append(Turn(turn[0], text, more))
        else:
            changed.append(Turn(turn[0], text))
    return changed


def _fill(template: Template | None, row: dict[str, Any]) -> str:
    """A template's text, "" where the row lacks what it names."""
    try:
        return template.fill(row).strip() if template else ""
    except Rejected:
        return ""


def _license_text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return ""
