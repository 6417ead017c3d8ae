"""From texts to token ids, for preprocessing and for generation: the only place that does it.

Every function takes a fast tokenizer of transformers and adds special tokens through templates
only (`add_special_tokens=False` everywhere), so that a BOS is never doubled.

An answer is supervised up to and with its end token (`templates.end_tokens`). What follows that in
the template, such as a line end, is not: generation stops at the end token.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from finetune.params import Document, Prompt
from finetune.text.templates import (
    Message,
    Offsets,
    Words,
    apply_template,
    encode_at,
    end_tokens,
    special_ids,
    stop_ids,
    takes_reasoning,
    takes_system,
    takes_tools,
)

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # all that they are is in their files


@dataclass(frozen=True)
class Rendered:
    """A prompt: its token ids, and the question in it, `cut` where it did not fit whole."""

    ids: list[int]
    question: str
    cut: bool


@dataclass(frozen=True)
class Chat:
    """A conversation: its token ids, the flat [start, end) spans of the answers to learn, whether
    turns were left out at its end, and which of its answers, learnt or not, it ends with."""

    ids: list[int]
    spans: list[int]
    cut: bool
    answer: int


def make_words(prompt: Prompt, document: Document) -> Words:
    """The words of one source, by params."""
    return Words(
        prompt.template, document.system, document.instruction or "", dict(prompt.template_kwargs)
    )


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
    settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    if settings.get("tokenizer_class") in _GENERIC:
        from transformers import PreTrainedTokenizerFast  # what AutoTokenizer would choose

        return PreTrainedTokenizerFast.from_pretrained(base, local_files_only=True)
    from transformers import AutoTokenizer  # imports torch, which takes seconds

    # With mistral-common installed, a tekken.json would be preferred, whose tokenizer is slow.
    return AutoTokenizer.from_pretrained(
        base, local_files_only=True, mistral_format=False, trust_remote_code=False
    )


def render_prompts(
    tokenizer: Any,
    words: Words,
    questions: Sequence[str],
    budgets: Sequence[int | None],
    ranges: Sequence[tuple[int, int] | None] | None = None,
) -> list[Rendered | None]:
    """Each question with the words around it, in at most its budget of tokens.

    Only the question is cut: the characters of its range, at their end; without a range, what
    stands before its last line. Where that is not enough, the last line is cut at its end. None
    where nothing of the question would be left.
    """
    ids = encode(tokenizer, [prompt_text(tokenizer, words, each) for each in questions])
    ranges = ranges or [None] * len(questions)
    return [
        Rendered(each, question, cut=False)
        if budget is None or len(each) <= budget
        else _cut(tokenizer, words, question, budget, range_)
        for each, question, budget, range_ in zip(ids, questions, budgets, ranges, strict=True)
    ]


def answer_ids(tokenizer: Any, words: Words, answers: Sequence[str]) -> list[list[int]]:
    """The token ids of each answer as they follow any prompt, up to and with its end token.

    The template decides what stands before and after the answer (Mistral's puts a space before it),
    so each is rendered behind a short question, and what follows that question's prompt is taken.
    """
    before = prompt_text(tokenizer, words, "?")
    texts = [_answered(tokenizer, words, answer, before) for answer in answers]
    found = []
    for (ids, offsets), text in zip(encode_at(tokenizer, texts), texts, strict=True):
        start = _tokens_before(offsets, len(before), text)
        end, closing = len(ids), []  # a plain answer ends with the EOS that was written
        if words.template == "chat":
            end, closing = _turn_end(tokenizer, ids, offsets, start, len(ids), text)
        found.append([*ids[start:end], *closing])
    return found


def render_chat(
    tokenizer: Any,
    words: Words,
    messages: Sequence[Message],
    max_tokens: int,
    tools: Sequence[dict[str, Any]] | None = None,
) -> list[Chat] | str:
    """A conversation as one example; the reason in a word where it cannot be one.

    Turns whose `train` is false are read, not learnt. Turns that do not fit are left out at the
    end. Where the template writes earlier turns otherwise once later ones follow (Qwen3 takes their
    thinking out), each answer is an example of its own, as the model will be asked for it.
    """
    messages = with_instruction(tokenizer, words, messages)
    if (tools or any(_is_tool_turn(each) for each in messages)) and not takes_tools(tokenizer):
        return "template_without_tools"
    if any(each.get("reasoning_content") for each in messages) and not takes_reasoning(tokenizer):
        return "template_without_reasoning"
    if not any(_is_learnt(message) for message in messages):
        return "no_turn_to_learn"
    rendered = _render_turns(tokenizer, words, messages, max_tokens, tools)
    if rendered is not None:
        return [rendered] if rendered.spans else "first_exchange_too_long"
    chats = []
    for number, message in enumerate(messages):
        if _is_learnt(message):
            alone = [{**each, "train": False} for each in messages[:number]]
            chat = _render_turns(tokenizer, words, [*alone, message], max_tokens, tools)
            if chat is None:
                raise ValueError(
                    "the chat template writes an answer otherwise than its prompt promises, so the "
                    "assistant's turns cannot be told apart: set prompt.template_kwargs (such as "
                    "enable_thinking: false), or prompt.template to plain"
                )
            chats += [chat] if chat.spans else []
    return chats or "first_exchange_too_long"


def prompt_text(tokenizer: Any, words: Words, question: str) -> str:
    """What the model reads before it answers, special tokens included."""
    if words.template == "plain":
        return _plain(tokenizer, words, question)
    messages = with_instruction(tokenizer, words, [{"role": "user", "content": question}])
    return apply_template(tokenizer, words, messages, answer_next=True)


def with_instruction(tokenizer: Any, words: Words, messages: Sequence[Message]) -> list[Message]:
    """The messages with the instruction before the first question and the system's words as the
    system's turn, or before the first question where the template has no such turn."""
    system, rest = _split_system(words, messages)
    parts = [words.instruction, rest[0]["content"]]
    head: list[Message] = []
    if system and takes_system(tokenizer):
        head = [{"role": "system", "content": system}]
    elif system:
        parts.insert(0, system)
    first = {**rest[0], "content": _paragraphs(parts)}
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
    tokenizer: Any,
    words: Words,
    question: str,
    budget: int,
    range_: tuple[int, int] | None,
) -> Rendered | None:
    """Shorten the question's range, and then what is left, until all fits."""
    start, end = range_ or (0, _before_last_line(question))
    text, ids = _shorten(tokenizer, words, question, budget, start, end)
    if ids is None and text:
        text, ids = _shorten(tokenizer, words, text, budget, 0, len(text))
    return Rendered(ids, text, cut=True) if ids is not None and text else None


def _shorten(
    tokenizer: Any, words: Words, question: str, budget: int, start: int, end: int
) -> tuple[str, list[int] | None]:
    """The question with as many tokens taken off the end of [start, end) as it needs, and its ids;
    without all of that range, and None, where that is not enough."""
    end = min(end, len(question))
    part = question[start:end]
    encoding = tokenizer.backend_tokenizer.encode(part, add_special_tokens=False)
    keep = len(encoding.ids)
    [ids] = encode(tokenizer, [prompt_text(tokenizer, words, question)])
    text = question
    while len(ids) > budget:
        keep -= len(ids) - budget
        if keep <= 0:
            return (question[:start] + question[end:]).strip(), None
        text = question[:start] + part[: encoding.offsets[keep - 1][1]].rstrip() + question[end:]
        [ids] = encode(tokenizer, [prompt_text(tokenizer, words, text)])
    return text, ids


def _before_last_line(question: str) -> int:
    """Where what stands before the last line ends; the end of a question of one line."""
    before, line_end, _ = question.rpartition("\n")
    return len(before.rstrip()) if line_end else len(question)


def _plain(tokenizer: Any, words: Words, question: str) -> str:
    bos = tokenizer.bos_token if bos_ids(tokenizer) else ""
    return bos + _paragraphs([words.system or "", words.instruction, question]) + "\n\n"


def _answered(tokenizer: Any, words: Words, answer: str, before: str) -> str:
    """The prompt of a short question with an answer, and what the template puts behind that."""
    if words.template == "plain":
        return before + answer + tokenizer.eos_token
    messages = with_instruction(tokenizer, words, [{"role": "user", "content": "?"}])
    text = apply_template(
        tokenizer, words, [*messages, {"role": "assistant", "content": answer}], answer_next=False
    )
    if text.startswith(before):
        return text
    # A template that writes an answered turn otherwise than one to be answered (thinking tags).
    own, following = end_tokens(tokenizer)
    end = own if own is not None else following
    return (
        before
        + answer
        + tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id if end is None else end)
    )


def _render_turns(
    tokenizer: Any,
    words: Words,
    messages: Sequence[Message],
    max_tokens: int,
    tools: Sequence[dict[str, Any]] | None,
) -> Chat | None:
    """All turns as one text; None where a turn is not written as its prompt promises.

    An answer begins where the conversation rendered up to it ends, and lasts as far as the one
    rendered up to and with it is the beginning of the whole.
    """
    whole = apply_template(tokenizer, words, messages, answer_next=False, tools=tools)
    [(ids, offsets)] = encode_at(tokenizer, [whole])
    spans: list[int] = []
    cut, last = False, 0
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    for answer, number in enumerate(answers):
        message = messages[number]
        before = apply_template(tokenizer, words, messages[:number], answer_next=True, tools=tools)
        upto = apply_template(
            tokenizer, words, messages[: number + 1], answer_next=False, tools=tools
        )
        reach = _common(upto, whole)
        if not whole.startswith(before) or reach <= len(before):
            if not _is_learnt(message):
                continue
            return None
        start = _tokens_before(offsets, len(before), whole)
        limit = next((n for n, (_, end) in enumerate(offsets) if end > reach), len(ids))
        end, closing = _turn_end(tokenizer, ids, offsets, start, limit, whole)
        if closing and number < len(messages) - 1:
            closing = []  # an end that the template leaves out can only be added at the end
        if end + len(closing) > max_tokens:
            cut = True
            break
        if _is_learnt(message):
            spans += [start, end + len(closing)]
            last = answer
        if closing:
            ids = [*ids[:end], *closing]
    return Chat(ids[: spans[-1]] if spans else [], spans, cut, last)


def _turn_end(
    tokenizer: Any,
    ids: Sequence[int],
    offsets: Offsets,
    start: int,
    limit: int,
    text: str,
) -> tuple[int, list[int]]:
    """Behind which token the answer that begins at `start` ends, and what must be added to it.

    `limit` is where the turn ends in the template.
    """
    own, following = end_tokens(tokenizer)
    ends = [own] if own is not None else []
    for number in range(start, limit):
        if ids[number] in ends:
            return number + 1, []
    last = limit
    while last > start and not text[slice(*offsets[last - 1])].strip():
        last -= 1
    if last > start and ids[last - 1] in special_ids(tokenizer):
        return last, []  # such as Llama 3's <|eom_id|> behind a call of a tool
    if following is not None and limit < len(ids) and ids[limit] == following:
        return limit + 1, []
    return limit, [tokenizer.eos_token_id if following is None else following]


def _is_tool_turn(message: Message) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def _is_learnt(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("train", True)


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    if other.startswith(one):
        return len(one)
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _tokens_before(offsets: Offsets, characters: int, text: str) -> int:
    """How many tokens stand before a place in the text; none may reach across it, but over the
    blanks behind it, which some special tokens take in (Phi-3's)."""
    count = next((n for n, (start, _) in enumerate(offsets) if start >= characters), len(offsets))
    if count and text[characters : offsets[count - 1][1]].strip():
        raise ValueError(f"the tokenizer joins prompt and answer: {text[characters - 20 :][:40]!r}")
    return count


def _split_system(
    words: Words, messages: Sequence[Message]
) -> tuple[str | None, Sequence[Message]]:
    """The system's text, a conversation's own before that of params, and the other turns."""
    if messages[0]["role"] == "system":
        return messages[0]["content"], messages[1:]
    return words.system, messages


@lru_cache
def _special_texts(tokenizer: Any) -> tuple[str, list[str]]:
    """The special tokens' texts, those of what ends an answer too, and their first characters."""
    ends = stop_ids(tokenizer)
    added = tokenizer.added_tokens_decoder.items()
    texts = [str(each) for number, each in added if each.special or number in ends]
    return "".join({each[0] for each in texts}), texts


def _paragraphs(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)
