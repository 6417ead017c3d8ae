"""From documents to examples: token ids, and the spans of them that are supervised."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune.params import Preprocess
from finetune.text.prompts import (
    Chat,
    answer_ids,
    bos_ids,
    holds_special_token,
    open_tokenizer,
    render_chat,
    render_prompts,
)
from finetune.text.templates import Words
from finetune.text.tokens import SCHEMA as TOKENS
from stages.preprocess.audit import audit
from stages.preprocess.documents import cut_range
from stages.preprocess.pieces import Piece, cut_text
from stages.preprocess.shards import read_shard, turns_of
from stages.preprocess.turns import Turn

SCHEMA = pa.schema(
    [
        *TOKENS,
        ("document", pa.int64()),
        ("split", pa.int8()),
        ("pieces", pa.int32()),  # of the document
        ("cut", pa.bool_()),
        ("answer", pa.int32()),  # of the document's answers: that of the last span
        ("written", pa.string()),  # that answer as a model writes it, where it calls a tool
    ]
)


@dataclass(frozen=True)
class Tokenise:
    """A shard of documents, their splits, and the file of examples to make of them."""

    path: Path
    documents: Path
    source: str
    start: int  # number of the shard's first document
    splits: Path  # int8[all documents], .npy; -1 is left out
    base: Path
    words: Words
    settings: Preprocess


def tokenise(task: Tokenise) -> None:
    """Write the examples of a shard. Documents that cannot be examples are in its metadata."""
    shard, _ = read_shard(task.documents)
    splits = np.load(task.splits, mmap_mode="r")[task.start : task.start + len(shard)]
    rows = np.flatnonzero(splits >= 0).tolist()
    tokenizer = load(task.base)
    examples = _examples(tokenizer, task, [turns_of(shard, row) for row in rows])
    documents, rejected = [], []
    for row, result in zip(rows, examples, strict=True):
        if isinstance(result, str):
            rejected.append((task.start + row, result))
        else:
            audit(tokenizer, result, shard["origin"][row].as_py())
            documents.append((row, result))
    write_examples(task, shard, splits, documents, rejected)


def write_examples(
    task: Tokenise,
    shard: pa.RecordBatch,
    splits: np.ndarray,
    documents: Sequence[tuple[int, list[Piece]]],
    rejected: Sequence[tuple[int, str]],
) -> None:
    """Write examples as an Arrow file of one batch. Atomic."""
    flat = [(row, example, len(each)) for row, each in documents for example in each]
    rows = [row for row, _, _ in flat]
    ids = shard["id"].to_numpy()
    columns = [
        pa.array([f"{ids[row]:016x}" for row in rows], pa.string()),
        pa.array([task.source] * len(rows), pa.string()),
        _lists([example.input_ids for _, example, _ in flat]),
        _lists([example.spans for _, example, _ in flat]),
        pa.array([task.start + row for row in rows], pa.int64()),
        pa.array(splits[rows], pa.int8()),
        pa.array([pieces for _, _, pieces in flat], pa.int32()),
        pa.array([example.cut for _, example, _ in flat], pa.bool_()),
        pa.array([example.answer for _, example, _ in flat], pa.int32()),
        pa.array([example.written for _, example, _ in flat], pa.string()),
    ]
    schema = SCHEMA.with_metadata({"rejected": json.dumps(rejected)})
    partial = task.path.with_suffix(".partial")
    with pa.ipc.new_file(str(partial), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    partial.rename(task.path)


def read_examples(path: Path) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
    """The examples of a shard, memory-mapped, and the documents that could not be any."""
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    rejected = json.loads(file.schema.metadata[b"rejected"])
    return file.get_batch(0), [(document, reason) for document, reason in rejected]


@lru_cache(maxsize=1)
def load(base: Path) -> Any:
    """The tokenizer, loaded once in each process."""
    return open_tokenizer(base)


def _examples(
    tokenizer: Any, task: Tokenise, documents: Sequence[list[Turn]]
) -> Iterator[list[Piece] | str]:
    """The examples of each document, or the reason why it has none."""
    if task.settings.mode == "causal":
        return _causal(tokenizer, task.settings.max_length, documents)
    refused = [any(_spells_special(tokenizer, turn) for turn in each) for each in documents]
    make = _completions if task.settings.mode == "completion" else _chats
    made = make(
        tokenizer, task, [each for each, no in zip(documents, refused, strict=True) if not no]
    )
    return ("special_token" if no else next(made) for no in refused)


def _spells_special(tokenizer: Any, turn: Turn) -> bool:
    said: list[str] = []
    turn.map(lambda text: said.append(text) or text)
    return any(holds_special_token(tokenizer, text) for text in said)


def _completions(
    tokenizer: Any, task: Tokenise, documents: Sequence[list[Turn]]
) -> Iterator[list[Piece] | str]:
    """One example each: the question's end is cut until question and answer fit."""
    questions = [turns[0][1] for turns in documents]
    answers = answer_ids(tokenizer, task.words, [turns[1][1] for turns in documents])
    budgets = [task.settings.max_length - len(answer) for answer in answers]
    ranges = [cut_range(turns[0]) for turns in documents]
    rendered = render_prompts(tokenizer, task.words, questions, budgets, ranges)
    for prompt, answer in zip(rendered, answers, strict=True):
        if prompt is None:
            yield "answer_too_long"
            continue
        ids = prompt.ids + answer
        yield [Piece(ids, [len(prompt.ids), len(ids)], prompt.cut)]


def _chats(
    tokenizer: Any, task: Tokenise, documents: Sequence[list[Turn]]
) -> Iterator[list[Piece] | str]:
    """Mostly one example each: turns that do not fit are left out at the end."""
    for turns in documents:
        messages = [{"role": turn[0], "content": turn[1], **turn.more} for turn in turns]
        tools = messages[0].pop("tools", None)
        chats = render_chat(tokenizer, task.words, messages, task.settings.max_length, tools)
        if isinstance(chats, str):
            yield chats
            continue
        calls = any("tool_calls" in turn.more for turn in turns)
        yield [
            Piece(
                chat.ids,
                chat.spans,
                chat.cut,
                chat.answer,
                _written(tokenizer, chat) if calls and chat.spans else None,
            )
            for chat in chats
        ]


def _written(tokenizer: Any, chat: Chat) -> str:
    """The last answer with its calls of tools, which the turn's text lacks."""
    start, end = chat.spans[-2:]
    return tokenizer.decode(chat.ids[start:end], skip_special_tokens=True).strip()


def _causal(
    tokenizer: Any, max_length: int, documents: Sequence[list[Turn]]
) -> Iterator[list[Piece] | str]:
    """As many examples as a text needs; BOS before and EOS behind all of it."""
    bos, eos = bos_ids(tokenizer), tokenizer.eos_token_id
    texts = [turns[0][1] for turns in documents]
    for text, encoding in zip(texts, encode_text(tokenizer, texts), strict=True):
        ids = [*bos, *encoding.ids, eos]
        ends: list[int] = []
        if len(ids) > max_length:
            [where] = encode_text(tokenizer, [text], offsets=True)
            ends = cut_text(text, where.offsets, len(bos), max_length)
        bounds = [0, *ends, len(ids)]
        yield [Piece(ids[a:b], [1, b - a]) for a, b in itertools.pairwise(bounds)]


def encode_text(tokenizer: Any, texts: Sequence[str], offsets: bool = False) -> list[Any]:
    """Encodings of texts in which the special tokens' names are text like any other.

    Without `offsets` they have none, and take a third less time.
    """
    backend = tokenizer.backend_tokenizer
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    backend.encode_special_tokens = True
    try:
        return encode(list(texts), add_special_tokens=False)
    finally:
        backend.encode_special_tokens = False


def _lists(values: Sequence[Sequence[int]]) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    flat = np.fromiter(itertools.chain.from_iterable(values), np.int32, offsets[-1])
    return pa.ListArray.from_arrays(offsets, flat)
