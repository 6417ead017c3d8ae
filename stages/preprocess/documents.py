"""From the rows of a source to documents: turns of text, by the templates of params.yaml."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

Turn = tuple[str, str]  # role ("text" in causal mode), text

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}
_ROLES["system"] = "system"


class Rejected(Exception):
    """A document that is left out, with the reason it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Template:
    """Text with the names of columns in braces; `{{` is a brace. Columns may have any name."""

    parts: tuple[tuple[str, str | None], ...]  # literal text, and the column behind it

    @property
    def columns(self) -> list[str]:
        """The columns that the template names, in order."""
        return [column for _, column in self.parts if column is not None]

    def fill(self, row: dict[str, Any]) -> str:
        """The text for a row; "" where every column is empty. Raises Rejected."""
        values = [_text(row, column) for column in self.columns]
        if not any(value.strip() for value in values):
            return ""
        rest = iter(values)
        return "".join(
            literal + (next(rest) if column is not None else "") for literal, column in self.parts
        )


def parse_template(text: str, key: str) -> Template:
    """Read a template. Raises ValueError, naming its key in params.yaml."""
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{key} is {text!r}: {error}; write {{{{ for a brace") from None
    if any(format_spec or conversion for _, _, format_spec, conversion in parsed):
        raise ValueError(f"{key} is {text!r}: write only {{column}}, without ! or :")
    if any(column == "" for _, column, _, _ in parsed):
        raise ValueError(f"{key} is {text!r}: name a column between the braces")
    template = Template(tuple((literal, column) for literal, column, _, _ in parsed))
    if not template.columns:
        raise ValueError(f"{key} is {text!r}: name at least one column, as in '{{text}}'")
    return template


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
            if columns and column not in columns:
                raise ValueError(
                    f"documents.{source}.{name} names column {column!r}, which {source} lacks; "
                    f"it has: {', '.join(sorted(columns))}"
                )


def build_document(row: dict[str, Any], templates: dict[str, Template]) -> list[Turn]:
    """The turns of one row. Raises Rejected with the reason."""
    if "messages" in templates:
        return _conversation(row, templates["messages"].columns[0])
    if "text" in templates:
        return [("text", _filled(row, templates["text"], "text"))]
    return [
        ("user", _filled(row, templates["prompt"], "prompt")),
        ("assistant", _filled(row, templates["answer"], "answer")),
    ]


def _filled(row: dict[str, Any], template: Template, name: str) -> str:
    text = template.fill(row)
    if not text.strip():
        raise Rejected(f"empty_{name}")
    return text


def _text(row: dict[str, Any], column: str) -> str:
    """A column's value as text: numbers as written, lists of such values as lines."""
    if column not in row:
        raise Rejected(f"no_{column}")
    value = row[column]
    if isinstance(value, list):
        return "\n".join(_scalar(each, column) for each in value)
    return _scalar(value, column)


def _scalar(value: Any, column: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise Rejected(f"{column}_is_no_text")


def _conversation(row: dict[str, Any], column: str) -> list[Turn]:
    """The turns of a list of {"role", "content"}, or of ShareGPT's {"from", "value"}."""
    if column not in row:
        raise Rejected(f"no_{column}")
    turns = [_turn(message) for message in _messages(row[column])]
    roles = [role for role, _ in turns]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in spoken:
        raise Rejected("no_assistant_turn")
    if spoken != _alternating(len(spoken)):
        raise Rejected("turns_do_not_alternate")
    return turns


def _messages(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise Rejected("messages_are_no_json") from None
    if not isinstance(value, list) or not value:
        raise Rejected("no_messages")
    return value


def _turn(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise Rejected("malformed_message")
    role = message.get("role", message.get("from"))
    text = message.get("content", message.get("value"))
    if not isinstance(role, str) or role not in _ROLES:
        raise Rejected("unknown_role")
    if not isinstance(text, str) or not text.strip():
        raise Rejected("empty_turn")
    return _ROLES[role], text


def _alternating(turns: int) -> list[str]:
    """user, assistant, user, ... ending with the assistant."""
    return ["user", "assistant"] * (turns // 2)
