"""From texts to token ids, for preprocessing and for generation: the only place that does it.

Every function takes a fast tokenizer of transformers and adds special tokens through templates
only (`add_special_tokens=False` everywhere), so that a BOS is never doubled.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune.params import Prompt

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # all that they are is in their files

Message = dict[str, str]
Offsets = list[tuple[int, int]]


@dataclass(frozen=True)
class Rendered:
    """A prompt: its token ids, and the question in it, `cut` where it did not fit whole."""

    ids: list[int]
    question: str
    cut: bool


def open_tokenizer(base: Path) -> Any:
    """The tokenizer of `models/base`, for preprocessing: no padding, no truncation.

    Raises ValueError where it is missing, or has no EOS or no fast version (a tokenizer.json).
    """
    if not (base / "tokenizer_config.json").exists():
        raise ValueError(f"{base} holds no tokenizer; run `dvc repro fetch_model`")
    tokenizer = _load_tokenizer(base)
    if not tokenizer.is_fast:
        raise ValueError(f"{base}: the tokenizer has no tokenizer.json, which preprocess needs")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{base}: the tokenizer has no eos_token, so answers could not end")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _load_tokenizer(base: Path) -> Any:
    name = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8")).get(
        "tokenizer_class"
    )
    if name in _GENERIC:
        from transformers import PreTrainedTokenizerFast  # what AutoTokenizer would choose

        return PreTrainedTokenizerFast.from_pretrained(base, local_files_only=True)
    from transformers import AutoTokenizer  # imports torch, which takes seconds

    # With mistral-common installed, a tekken.json would be preferred, whose tokenizer is slow.
    return AutoTokenizer.from_pretrained(base, local_files_only=True, mistral_format=False)


def render_prompts(
    tokenizer: Any, prompt: Prompt, questions: Sequence[str], budgets: Sequence[int | None]
) -> list[Rendered | None]:
    """Each question with the words around it, in at most its budget of tokens.

    Only the question is cut, at its end; the template around it stays whole. None where nothing of
    the question would be left.
    """
    ids = encode(tokenizer, [prompt_text(tokenizer, prompt, each) for each in questions])
    return [
        Rendered(each, question, cut=False)
        if budget is None or len(each) <= budget
        else _cut(tokenizer, prompt, question, budget, len(each))
        for each, question, budget in zip(ids, questions, budgets, strict=True)
    ]


def answer_ids(tokenizer: Any, prompt: Prompt, answers: Sequence[str]) -> list[list[int]]:
    """The token ids of each answer as they follow any prompt, ending with one EOS.

    The template decides what stands before and after the answer (Mistral's puts a space before it),
    so each is rendered behind a short question, and what follows that question's prompt is taken.
    """
    before = prompt_text(tokenizer, prompt, "?")
    texts = [_answered(tokenizer, prompt, "?", answer, before) for answer in answers]
    return [
        _until_eos(tokenizer, ids[_tokens_before(offsets, len(before), text) :])
        for (ids, offsets), text in zip(_encode_at(tokenizer, texts), texts, strict=True)
    ]


def render_chat(
    tokenizer: Any, prompt: Prompt, messages: Sequence[Message], max_tokens: int
) -> tuple[list[int], list[int], bool] | None:
    """A conversation's token ids, the flat [start, end) spans of the assistant's turns, and
    whether it was cut: only whole turns are, at the end. None where the first answer does not fit.

    Turns are found by rendering the conversation up to each of them: the place where that text ends
    in the whole one is where the turn begins. A turn ends with its first EOS.
    """
    messages = with_instruction(tokenizer, prompt, messages)
    whole = _template(tokenizer, messages, answer_next=False)
    [(ids, offsets)] = _encode_at(tokenizer, [whole])
    spans: list[int] = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _template(tokenizer, messages[:number], answer_next=True)
        if not whole.startswith(before):
            raise ValueError(
                "the chat template changes earlier turns when later ones follow, so the "
                "assistant's turns cannot be told apart: use mode completion"
            )
        start = _tokens_before(offsets, len(before), whole)
        end = start + len(_until_eos(tokenizer, ids[start:]))
        if end > len(ids):  # a template without EOS after the last turn
            ids = [*ids[: end - 1], tokenizer.eos_token_id]
        if end > max_tokens:
            break
        spans += [start, end]
    if not spans:
        return None
    answers = sum(message["role"] == "assistant" for message in messages)
    return ids[: spans[-1]], spans, len(spans) < 2 * answers


def prompt_text(tokenizer: Any, prompt: Prompt, question: str) -> str:
    """What the model reads before it answers, special tokens included."""
    if prompt.template == "plain":
        return _plain(tokenizer, prompt, question)
    messages = with_instruction(tokenizer, prompt, [{"role": "user", "content": question}])
    return _template(tokenizer, messages, answer_next=True)


def with_instruction(tokenizer: Any, prompt: Prompt, messages: Sequence[Message]) -> list[Message]:
    """The messages with `prompt.instruction` before the first question and `prompt.system` as the
    system's turn, or before the first question where the template has no such turn."""
    system, rest = _split_system(prompt, messages)
    parts = [prompt.instruction, rest[0]["content"]]
    head: list[Message] = []
    if system and _takes_system(tokenizer):
        head = [{"role": "system", "content": system}]
    elif system:
        parts.insert(0, system)
    first = {"role": "user", "content": _paragraphs(parts)}
    return [*head, first, *rest[1:]]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that hold their special tokens already."""
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [each.ids for each in encodings]


def bos_ids(tokenizer: Any) -> list[int]:
    """[BOS] where the tokenizer starts a text with it by itself, else []."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a").input_ids[:1] == [bos] else []


def holds_special_token(tokenizer: Any, text: str) -> bool:
    """Whether a text spells a special token, and so would pass for the template's own."""
    firsts, specials = _special_texts(tokenizer)
    return any(first in text for first in firsts) and any(each in text for each in specials)


def _cut(
    tokenizer: Any, prompt: Prompt, question: str, budget: int, length: int
) -> Rendered | None:
    """Shorten the question by as many of its tokens as are too many, until all fits."""
    encoding = tokenizer.backend_tokenizer.encode(question, add_special_tokens=False)
    keep, ids = len(encoding.ids), []
    while length > budget:
        keep -= length - budget
        text = question[: encoding.offsets[keep - 1][1]].rstrip() if keep > 0 else ""
        if not text:
            return None
        [ids] = encode(tokenizer, [prompt_text(tokenizer, prompt, text)])
        length = len(ids)
    return Rendered(ids, text, cut=True)


def _plain(tokenizer: Any, prompt: Prompt, question: str) -> str:
    bos = tokenizer.bos_token if bos_ids(tokenizer) else ""
    return bos + _paragraphs([prompt.system or "", prompt.instruction, question]) + "\n\n"


def _answered(tokenizer: Any, prompt: Prompt, question: str, answer: str, before: str) -> str:
    """A question with its answer and what the template puts behind that."""
    if prompt.template == "plain":
        return before + answer + tokenizer.eos_token
    messages = with_instruction(tokenizer, prompt, [{"role": "user", "content": question}])
    text = _template(
        tokenizer, [*messages, {"role": "assistant", "content": answer}], answer_next=False
    )
    # A template that writes an answered turn otherwise than one to be answered (thinking tags).
    return text if text.startswith(before) else before + answer + tokenizer.eos_token


def _tokens_before(offsets: Offsets, characters: int, text: str) -> int:
    """How many tokens stand before a place in the text; none may reach across it."""
    count = next((n for n, (start, _) in enumerate(offsets) if start >= characters), len(offsets))
    if count and offsets[count - 1][1] > characters:
        raise ValueError(f"the tokenizer joins prompt and answer: {text[characters - 20 :][:40]!r}")
    return count


def _until_eos(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The ids up to the first EOS, which is added where there is none."""
    eos = tokenizer.eos_token_id
    end = ids.index(eos) if eos in ids else len(ids)
    return [*ids[:end], eos]


def _encode_at(tokenizer: Any, texts: Sequence[str]) -> list[tuple[list[int], Offsets]]:
    """Token ids of each text, and the characters that each token stands for."""
    encodings = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [(each.ids, each.offsets) for each in encodings]


def _template(tokenizer: Any, messages: Sequence[Message], answer_next: bool) -> str:
    return tokenizer.apply_chat_template(
        list(messages),
        chat_template=_dated(tokenizer),
        tokenize=False,
        add_generation_prompt=answer_next,
    )


@lru_cache
def _dated(tokenizer: Any) -> str:
    """The chat template, with a fixed date where it writes today's: each day would have prompts of
    its own (Mistral-Small-24B-Instruct-2501 without a system's turn, Llama 3.2)."""
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no chat template; set prompt.template to plain")
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        return "{% macro strftime_now(_) %}2025-01-01{% endmacro %}" + template
    return template


def _split_system(
    prompt: Prompt, messages: Sequence[Message]
) -> tuple[str | None, Sequence[Message]]:
    """The system's text, a conversation's own before that of params, and the other turns."""
    if messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return prompt.system, messages


@lru_cache
def _takes_system(tokenizer: Any) -> bool:
    """Whether the chat template has a turn for the system (Mistral-7B-Instruct-v0.2 has none)."""
    from jinja2 import TemplateError

    messages = [{"role": "system", "content": "0x5f"}, {"role": "user", "content": "?"}]
    try:
        return "0x5f" in _template(tokenizer, messages, answer_next=True)
    except TemplateError:
        return False


@lru_cache
def _special_texts(tokenizer: Any) -> tuple[str, list[str]]:
    """The special tokens' texts, and their first characters."""
    texts = [str(each) for each in tokenizer.added_tokens_decoder.values() if each.special]
    return "".join({each[0] for each in texts}), texts


def _paragraphs(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)
