"""Conversations as people keep them: OpenAI's messages, ShareGPT's, axolotl's, calls of tools."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from stages.preprocess.turns import Rejected, Turn

_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot", "chatgpt", "ai", "function_call"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython", "function_response"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
# Keys of a message that say whether it is learnt; 0 and false mean that it is not.
_LEARNT = ("weight", "train", "training", "trainable", "loss", "loss_mask", "learn")
# Names of what the assistant thought before it answered; templates take the first.
_THOUGHT = ("reasoning_content", "reasoning", "thinking")


def read_conversation(value: Any, row: dict[str, Any]) -> list[Turn]:
    """The turns of a list of {"role", "content"}, or of ShareGPT's {"from", "value"}; or Rejected.

    `row` may hold the tools that there are.

    Questions that follow one another are one; what stands behind the last answer is left out.
    """
    turns: list[Turn] = []
    for turn in map(_turn, _messages(value)):
        if turns and turn[0] == turns[-1][0] == "user":
            turns[-1] = Turn("user", f"{turns[-1][1]}\n\n{turn[1]}", turns[-1].more)
        else:
            turns.append(turn)
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    _check_order([role for role, _ in turns])
    if tools := _json(row.get("tools") or row.get("functions")):
        role, text = turns[0]
        turns[0] = Turn(role, text, {**turns[0].more, "tools": list(_tools(tools))})
    return turns


def _check_order(roles: list[str]) -> None:
    """A system's turn at most at the beginning; then questions, answers, and what tools answer."""
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "assistant" not in spoken:
        raise Rejected("no_assistant_turn")
    if spoken[0] != "user":
        raise Rejected("no_question_first")
    allowed = {"user": {"assistant"}, "assistant": {"user", "tool"}, "tool": {"assistant", "tool"}}
    for role, following in zip(spoken, spoken[1:], strict=False):
        if following not in allowed.get(role, ()):
            raise Rejected("turns_do_not_alternate")


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
    said = message.get("role", message.get("from"))
    role = _ROLE_OF.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise Rejected("unknown_role")
    text = _content(message.get("content", message.get("value")))
    more = dict(_more(message))
    if said.strip().lower() == "function_call":
        text, more["tool_calls"] = "", [_call(text)]
    if not text.strip() and not more.get("tool_calls") and role != "tool":
        raise Rejected("empty_turn")
    return Turn(role, text, more)


def _content(value: Any) -> str:
    """A message's text: as it is, or the parts of a list that are text."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(map(_part, value))
    if not isinstance(value, str):
        raise Rejected("content_is_no_text")
    return value


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
        raise Rejected("content_is_no_text")
    return part["text"]


def _more(message: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a message holds beside its text: whether it is learnt, and what is of tools."""
    said = [message[key] for key in _LEARNT if message.get(key) is not None]
    if not all([_weight(each) for each in said]):
        yield "train", False
    if calls := list(_calls(message)):
        yield "tool_calls", calls
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str) and message[key]:
            yield key, message[key]
    if thought := next((message[key] for key in _THOUGHT if message.get(key)), None):
        if not isinstance(thought, str):
            raise Rejected("reasoning_is_no_text")
        yield "reasoning_content", thought


def _weight(value: Any) -> float:
    """0 or 1, however it is written: true, "0", 1.0 and 1.00."""
    try:
        weight = float({"true": 1, "false": 0}.get(str(value).lower(), value))
    except (TypeError, ValueError):
        weight = -1.0
    if weight not in (0, 1):
        raise Rejected("weight_is_not_0_or_1")
    return weight


def _calls(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The calls of tools of a message, and the one of OpenAI's older `function_call`."""
    calls = [_call(each) for each in _json(message.get("tool_calls")) or ()]
    yield from calls
    if older := message.get("function_call"):
        call = _call(older)
        if call["function"] not in [each["function"] for each in calls]:  # some write it twice
            yield call


def _call(value: Any) -> dict[str, Any]:
    """A call of a tool as templates take it: arguments as a mapping."""
    value = _json(value)
    if not isinstance(value, dict):
        raise Rejected("malformed_tool_call")
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Rejected("malformed_tool_call")
    arguments = _json(function.get("arguments", function.get("parameters", {})))
    call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": value["id"], **call} if isinstance(value.get("id"), str) else call


def _tools(values: Any) -> Iterator[dict[str, Any]]:
    for value in values if isinstance(values, list) else [values]:
        if not isinstance(value, dict):
            raise Rejected("malformed_tools")
        yield value if "function" in value else {"type": "function", "function": value}


def _json(value: Any) -> Any:
    """A value that may be written as JSON in a text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
