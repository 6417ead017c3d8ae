"""From the rows of a source to documents: turns of text, by the templates of params.yaml."""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.preprocess.conversations import read_conversation
from stages.preprocess.turns import Rejected, Turn

CAPTURE = "capture.warc.gz"  # the pages of a source that was crawled, beside its rows
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d+)\]")


def is_captured(row: dict[str, Any], folder: Path) -> bool:
    """Whether a row stands for a page in the capture of its source's folder."""
    return isinstance(row.get("warc_offset"), int) and (folder / CAPTURE).exists()


@dataclass(frozen=True)
class Template:
    """Text with the names of columns in braces; `{{` is a brace.

    A column may have any name; in quotes it may hold braces. Where a row has no column of the whole
    name, `{a.b}` and `{a[0].b}` lead into nested ones.
    """

    parts: tuple[tuple[str, str | None], ...]  # literal text, and the column behind it

    @property
    def columns(self) -> list[str]:
        """The columns that the template names, in order."""
        return [column for _, column in self.parts if column is not None]

    def fill(self, row: dict[str, Any]) -> str:
        """The text for a row; "" where every column is empty or absent. Raises Rejected."""
        return "".join(self._filled(row))

    def around(self, row: dict[str, Any], column: str) -> tuple[str, str]:
        """What stands before and after a column's value in the text for a row."""
        pieces = self._filled(row)
        at = [number for number, (_, name) in enumerate(self.parts) if name == column]
        place = 2 * at[0] + 1
        return "".join(pieces[:place]), "".join(pieces[place + 1 :])

    def _filled(self, row: dict[str, Any]) -> list[str]:
        """Literal, value, literal, value, ...; nothing where every value is empty."""
        values = [_text(row, column) for column in self.columns]
        if not any(value.strip() for value in values):
            return [""] * (2 * len(self.parts))
        rest = iter(values)
        return [
            piece
            for literal, column in self.parts
            for piece in (literal, next(rest) if column is not None else "")
        ]


def parse_template(text: str, key: str) -> Template:
    """Read a template. Raises ValueError, naming its key in params.yaml."""
    parts: list[tuple[str, str | None]] = []
    literal, at = "", 0
    while at < len(text):
        if text[at : at + 2] in ("{{", "}}"):
            literal, at = literal + text[at], at + 2
        elif text[at] == "{":
            column, at = _read_name(text, at + 1, key)
            parts.append((literal, column))
            literal = ""
        elif text[at] == "}":
            raise ValueError(f"{key} is {text!r}: a single '}}'; write }}}} for a brace")
        else:
            literal, at = literal + text[at], at + 1
    if literal:
        parts.append((literal, None))
    template = Template(tuple(parts))
    if not template.columns:
        raise ValueError(f"{key} is {text!r}: name at least one column, as in '{{text}}'")
    return template


def _read_name(text: str, at: int, key: str) -> tuple[str, int]:
    """The name of a column from `at` on, and where the text behind its brace goes on."""
    quoted = re.compile(r'"((?:[^"\\]|\\.)*)"\}').match(text, at)
    if quoted:
        return json.loads(f'"{quoted[1]}"'), quoted.end()
    end = text.find("}", at)
    name = text[at:end]
    if end < 0 or "{" in name:
        raise ValueError(f"{key} is {text!r}: a '{{' that is not closed; write {{{{ for a brace")
    if not name:
        raise ValueError(f"{key} is {text!r}: name a column between the braces")
    return name, end + 1


def parse_documents(documents: dict[str, str], source: str) -> dict[str, Template]:
    """The templates of a source. Raises ValueError for a malformed one."""
    templates = {
        name: parse_template(text, f"documents.{source}.{name}") for name, text in documents.items()
    }
    messages = templates.get("messages")
    if messages and messages.parts != (("", messages.columns[0]),):
        raise ValueError(
            f"documents.{source}.messages is {documents['messages']!r}: "
            "name one column of messages, as in '{messages}'"
        )
    return templates


def check_columns(
    templates: dict[str, Template], rows: Iterable[dict[str, Any]], source: str
) -> None:
    """Raise ValueError where a column is in none of the rows, and name those that are."""
    columns = {column for row in rows for column in row}
    for name, template in templates.items():
        for column in template.columns:
            if columns and column not in columns and root(column) not in columns:
                raise ValueError(
                    f"documents.{source}.{name} names column {column!r}, which {source} lacks; "
                    f"it has: {', '.join(sorted(columns))}"
                )


def root(column: str) -> str:
    """The column that a path begins with: `a` of `a.b` and of `a[0].b`."""
    return re.split(r"[.\[]", column, maxsplit=1)[0]


def build_document(
    row: dict[str, Any], templates: dict[str, Template], cut: str | None = None
) -> list[Turn]:
    """The turns of one row; `cut` names the column of the prompt that may be shortened.

    Raises Rejected with the reason.
    """
    if "messages" in templates:
        return read_conversation(value_of(row, templates["messages"].columns[0]), row)
    if "text" in templates:
        return [Turn("text", _filled(row, templates["text"], "text"))]
    prompt = _filled(row, templates["prompt"], "prompt")
    more = {}
    if cut is not None and cut in templates["prompt"].columns:
        before, after = templates["prompt"].around(row, cut)
        more = {"before": before, "after": after}
    answer = _filled(row, templates["answer"], "answer")
    return [Turn("user", prompt, more), Turn("assistant", answer)]


def cut_range(turn: Turn) -> tuple[int, int] | None:
    """The characters of a prompt that may be cut; None where params name no column for it."""
    if "before" not in turn.more:
        return None
    text, before, after = turn[1], turn.more["before"], turn.more["after"]
    if not text.startswith(before) or not text.endswith(after):
        return None  # cleaning has changed what is around the column
    return len(before), len(text) - len(after)


def _filled(row: dict[str, Any], template: Template, name: str) -> str:
    text = template.fill(row)
    if not text.strip():
        raise Rejected(f"empty_{name}")
    return text


def value_of(row: dict[str, Any], column: str) -> Any:
    """A column's value, or what a path into nested ones leads to; None where there is nothing."""
    if column in row:
        return row[column]
    value: Any = row
    for name, index in _STEP.findall(column):
        if index:
            inside = isinstance(value, list) and -len(value) <= int(index) < len(value)
            value = value[int(index)] if inside else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(row: dict[str, Any], column: str) -> str:
    """A column's value as text: numbers as written, true and false, lists of such as lines."""
    value = value_of(row, column)
    if isinstance(value, list):
        return "\n".join(_scalar(each, column) for each in value)
    return _scalar(value, column)


def _scalar(value: Any, column: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"  # as JSON has it, not as Python writes it
    if isinstance(value, int | float):
        return str(value)
    raise Rejected(f"{column}_is_no_text")
