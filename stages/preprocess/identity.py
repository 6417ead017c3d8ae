"""Which row a row is, and which rows must share a split: hashes of the values as they came.

They are taken before templates, prompt words, cleaning and masks, so that another prompt or another
mask compares the same test rows.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from stages.preprocess.documents import Template, value_of
from stages.preprocess.turns import Turn, said, said_beside

# The kind of a hash stands in its two lowest bits.
COMPARE, QUESTION, GROUP, BEGINNING = range(4)
_KINDS = {"identity": GROUP, "group": GROUP}
_BLANKS = re.compile(r"\s+")
_NOT_SAID = {"role", "from", "name", "weight", "train", "id", "type"}  # keys of a message


def columns_of(templates: Iterable[Template]) -> tuple[str, ...]:
    """The columns that templates name, each once, in order."""
    return tuple(dict.fromkeys(name for each in templates for name in each.columns))


def hash_values(row: dict[str, Any], columns: Sequence[str]) -> int:
    """64 bits of the values of these columns."""
    values = [value_of(row, column) for column in columns]
    if len(values) == 1 and isinstance(values[0], str):
        return hash_text(values[0])
    return hash_text(json.dumps(values, ensure_ascii=False, sort_keys=True, default=str))


def hash_text(text: str) -> int:
    """64 bits of a text."""
    return _hash(text.encode(errors="surrogatepass"))


def key_of(kind: str, value: int) -> int:
    """A hash that carries its kind."""
    return value & ~3 | _KINDS[kind]


def plain(text: str) -> str:
    """A text as equality has it: NFC, without case, blanks collapsed. Every sign stays."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _BLANKS.sub(" ", text).strip().casefold()


def compared_texts(
    row: dict[str, Any], templates: dict[str, Template], turns: Sequence[Turn]
) -> list[str]:
    """What a document says, in one or two texts: all of it, or what is asked and what is answered.

    These are values of columns without the words around them; of a conversation its turns.
    """
    if "messages" in templates:
        asked = "\n".join(said(turn) for turn in turns if turn[0] != "assistant")
        return [asked, "\n".join(said(turn) for turn in turns if turn[0] == "assistant")]
    names = ("prompt", "answer") if "prompt" in templates else ("text",)
    return [
        "\n".join(
            said
            for column in dict.fromkeys(templates[name].columns)
            for said in _strings(value_of(row, column))
        )
        for name in names
    ]


def question_keys(compared: Sequence[str], turns: Sequence[Turn], conversation: bool) -> list[int]:
    """Hashes of what must not be in two splits: a question, whatever its answer; a whole text; each
    beginning of a conversation that ends with an answer."""
    keys, digest = [], hashlib.blake2b(digest_size=8)
    if not conversation:
        return [question_hash(compared[0])]
    asked = [turn for turn in turns if turn[0] != "system"]
    if [role for role, _ in asked] == ["user", "assistant"]:
        keys.append(question_hash(asked[0][1]))
    for turn in turns:
        role, text = turn
        said = f"{role}\x1f{plain(text)}{said_beside(turn)}\x1e"
        digest.update(said.encode(errors="surrogatepass"))
        if role == "assistant":
            keys.append(int.from_bytes(digest.copy().digest(), "big") & ~3 | BEGINNING)
    return keys


def question_hash(text: str) -> int:
    """The key of a question, as `question_keys` gives it."""
    return _hash(plain(text).encode(errors="surrogatepass")) & ~3 | QUESTION


def _strings(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth, without what no one says."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in _NOT_SAID:
                yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
