"""What a document is made of: turns of text; and how one is left out."""

import json
from collections.abc import Callable
from typing import Any


class Rejected(Exception):
    """A document that is left out, with the reason it is counted under."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


TEMPLATE_PARTS = ("before", "after")  # of a prompt: no message has them


class Turn(tuple):
    """A pair of role ("text" in causal mode) and text. `more` is what else belongs to it.

    Of a message: `train` false where it is not learnt, `tool_calls`, `tools` and the like, as the
    chat template takes them. Of a prompt: what stands `before` and `after` the column that may be
    cut. All of it is JSON.
    """

    more: dict[str, Any]

    def __new__(cls, role: str, text: str, more: dict[str, Any] | None = None) -> "Turn":
        turn = super().__new__(cls, (role, text))
        turn.more = more or {}
        return turn

    def map(self, function: Callable[[str], str]) -> "Turn":
        """The same turn with every text in it changed by `function`."""
        role, text = self
        return Turn(role, function(text), _map(self.more, function))


def said(turn: "Turn | tuple[str, str]") -> str:
    """A turn's text, and its calls of tools as JSON on a line of their own."""
    calls = getattr(turn, "more", {}).get("tool_calls")
    parts = [turn[1], json.dumps(calls, ensure_ascii=False, sort_keys=True) if calls else ""]
    return "\n".join(filter(None, parts))


def said_beside(turn: "Turn | tuple[str, str]") -> str:
    """What a message says beside its text, as JSON: calls of tools and whether it is learnt; "" for
    most."""
    more = getattr(turn, "more", {})
    more = {key: value for key, value in more.items() if key not in TEMPLATE_PARTS}
    return json.dumps(more, ensure_ascii=False, sort_keys=True) if more else ""


def _map(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, list):
        return [_map(each, function) for each in value]
    if isinstance(value, dict):
        return {key: _map(each, function) for key, each in value.items()}
    return value
