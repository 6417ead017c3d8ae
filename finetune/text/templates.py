"""Chat templates: applied, and tried out for what they do.

An answer ends with its end token: the first special token that the chat template puts behind an
answer (`<|im_end|>`, `<end_of_turn>`, `</s>`), which need not be the tokenizer's EOS. Where a
template puts none behind an answer, the special token that begins the next turn ends it (GLM),
else EOS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

_ANSWER = "0x5f"  # stands for an answer where a template is tried out

Message = dict[str, Any]
Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Words:
    """The words around a source's questions. Base and tuned model get the same."""

    template: str  # chat or plain
    system: str | None
    instruction: str
    template_kwargs: dict[str, Any] = field(default_factory=dict)


def apply_template(
    tokenizer: Any,
    words: Words,
    messages: Sequence[Message],
    answer_next: bool,
    tools: Sequence[dict[str, Any]] | None = None,
) -> str:
    """The text that the chat template makes of messages; `answer_next` opens the assistant's turn.

    A message's `train` is not for the template. Raises ValueError where there is no template.
    """
    plain = [{key: value for key, value in each.items() if key != "train"} for each in messages]
    return tokenizer.apply_chat_template(
        plain,
        tools=list(tools) if tools else None,
        chat_template=_dated(tokenizer, bool(tools)),
        tokenize=False,
        add_generation_prompt=answer_next,
        **words.template_kwargs,
    )


def stop_ids(tokenizer: Any) -> list[int]:
    """The tokens at which an answer ends: those of the chat template, and EOS; sorted."""
    found = {tokenizer.eos_token_id}
    if getattr(tokenizer, "chat_template", None) is not None:
        found |= set(_end_tokens(tokenizer))
    return sorted(found - {None})


def without_thinking(text: str) -> str:
    """An answer without what its model thought first; "" where it never came to an answer."""
    if "</think>" in text:
        return text.rpartition("</think>")[2].strip()
    return text.partition("<think>")[0].strip()


@lru_cache
def end_tokens(tokenizer: Any) -> tuple[int | None, int | None]:
    """The first special token that the template puts behind an answer, within its turn; and the
    one that begins a next question.

    Any added token but a blank one will do: not every tokenizer says of its end tokens that they
    are special, and what ends a turn is no part of the answer.
    """
    words = Words("chat", None, "")
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}]
    found: list[int | None] = []
    for messages in (turns, [*turns, turns[0]]):
        text = apply_template(tokenizer, words, messages, answer_next=False)
        place = text.rfind(_ANSWER) + len(_ANSWER)
        [(ids, offsets)] = encode_at(tokenizer, [text])
        behind = zip(ids, offsets, strict=True)
        added = tokenizer.added_tokens_decoder
        marks = {n for n, each in added.items() if each.special or each.content.strip()}
        found.append(next((n for n, (at, _) in behind if at >= place and n in marks), None))
    own, following = found
    return own, following if own is None else None


@lru_cache
def takes_system(tokenizer: Any) -> bool:
    """Whether the chat template has a turn for the system (Mistral-7B-Instruct-v0.2 has none)."""
    messages = [{"role": "system", "content": _ANSWER}, {"role": "user", "content": "?"}]
    return _ANSWER in _tried(tokenizer, messages)


@lru_cache
def takes_tools(tokenizer: Any) -> bool:
    """Whether the chat template writes what tools there are, calls of them and their answers."""
    function = {"name": "f5x_call", "arguments": {"at": "f5x_argument"}}
    described = {"name": "f5x_call", "description": "", "parameters": {"type": "object"}}
    messages = [
        {"role": "user", "content": "?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "123456789", "type": "function", "function": function}],
        },
        {"role": "tool", "name": "f5x_call", "tool_call_id": "123456789", "content": "f5x_result"},
    ]
    text = _tried(tokenizer, messages, [{"type": "function", "function": described}])
    return all(each in text for each in ("f5x_call", "f5x_argument", "f5x_result"))


@lru_cache
def takes_reasoning(tokenizer: Any) -> bool:
    """Whether the chat template writes what the assistant thought before it answered."""
    answer = {"role": "assistant", "content": _ANSWER, "reasoning_content": "f5x_thought"}
    return "f5x_thought" in _tried(tokenizer, [{"role": "user", "content": "?"}, answer])


@lru_cache
def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of the special tokens."""
    return frozenset(n for n, each in tokenizer.added_tokens_decoder.items() if each.special)


def encode_at(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], Offsets]]:
    """Token ids of each text, and the characters that each token stands for."""
    encodings = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [(each.ids, each.offsets) for each in encodings]


def _end_tokens(tokenizer: Any) -> list[int]:
    own, following = end_tokens(tokenizer)
    return [each for each in ((own,) if own is not None else (following,)) if each is not None]


def _tried(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None = None
) -> str:
    """What the template makes of messages that it may not take; "" where it does not."""
    from jinja2 import TemplateError

    try:
        return apply_template(
            tokenizer, Words("chat", None, ""), messages, answer_next=True, tools=tools
        )
    except (TemplateError, TypeError):
        return ""


@lru_cache
def _dated(tokenizer: Any, with_tools: bool = False) -> str:
    """The chat template, with a fixed date where it writes today's: each day would have prompts of
    its own (Mistral-Small-24B-Instruct-2501 without a system's turn, Llama 3.2)."""
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no chat template; set prompt.template to plain")
    template = tokenizer.get_chat_template(tools=[{}] if with_tools else None)
    if "strftime_now" in template:
        return "{% macro strftime_now(_) %}2025-01-01{% endmacro %}" + template
    return template
