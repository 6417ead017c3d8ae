"""JSON Lines and JSON files as rows."""

import codecs
import json
import math
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NoReturn

from stages.fetch.streams import (
    BLOCK_BYTES,
    BOM,
    MAX_RECORD_BYTES,
    Record,
    Text,
    decode,
    first_twice,
    read_lines,
    read_whole,
)

MAX_JSON_BYTES = 256 << 20  # an object is read whole, and needs about eight times its size
MAX_DEPTH = 100  # the same on every Python: what its own parser takes differs
SUFFIXES = {".jsonl", ".ndjson"}
_BLANK = re.compile(r"\s*")
CALLS = {"tools", "functions", "tool_calls", "function_call"}  # what is trained on as JSON


def read_json(stream: Text, name: str) -> Iterator[Record]:
    """The rows of a JSON file, by what it holds, not by its name.

    JSON Lines; a list of rows, of any length; an object of rows, of columns (pandas' own), with
    the list of rows as its only value; or one row.
    """
    first = stream.head.removeprefix(BOM).lstrip()
    line, _, rest = first.partition(b"\n")
    if first[:1] == b"[":
        yield from _read_list(stream, name)
    elif SUFFIXES & set(PurePosixPath(name.lower()).suffixes) or (
        rest.strip() and _is_object(line)
    ):
        yield from _read_lines(stream, name)
    else:
        yield from _read_object(stream, name)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(stream: Text, name: str) -> Iterator[Record]:
    """A row a line; blank lines are skipped."""
    for number, offset, line in read_lines(stream, name):
        if line.strip():
            where = f"{name}:{number}"
            row = _row(_parse(decode(line, where, offset), where), where)
            yield Record.of(row, f":{number}", line)


def _read_list(stream: Text, name: str) -> Iterator[Record]:
    """The rows of one list, a part of the file in memory: `:3` is the third."""
    buffer, number = _Buffer(stream, name), 0
    buffer.skip("[")
    while buffer.peek() != "]":
        if number:
            buffer.skip(",")
        number += 1
        row = _row(buffer.value(), f"{name}:{number}")
        yield Record.of(row, f":{number}")
    buffer.skip("]")
    if text := buffer.peek():
        buffer.fail(f"Extra data, {text!r}", buffer.at)


class _Buffer:
    """Values out of a stream of JSON, one after the other."""

    def __init__(self, stream: Text, name: str) -> None:
        self._stream, self._name, self._text, self.at, self._lines = stream, name, "", 0, 1
        self._decoder, self._ended = codecs.getincrementaldecoder("utf-8-sig")(), False

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            self.at = _BLANK.match(self._text, self.at).end()
            if self.at < len(self._text) or not self._more():
                return self._text[self.at : self.at + 1]

    def skip(self, sign: str) -> None:
        """Go over a sign that must be there."""
        if self.peek() != sign:
            self.fail(f"{sign!r} expected", self.at)
        self.at += 1

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 20
                if not (cut and self._more()):
                    self.fail(error.msg, error.pos)
            except RecursionError:
                raise ValueError(f"{self._name} is nested too deeply") from None
            except ValueError as error:
                self.fail(str(error), self.at)
            else:
                if end < len(self._text) or not self._more():  # else 12 may be the half of 1234
                    self.at = end
                    return value

    def fail(self, what: str, at: int) -> NoReturn:
        """Raise the error of a place in the text."""
        line = self._lines + self._text.count("\n", 0, at)
        raise ValueError(f"{self._name} is not valid JSON: {what} at line {line}")

    def _more(self) -> bool:
        """Forget what is behind and read on; False at the end. One value has a limit."""
        if self._ended:
            return False
        self._lines += self._text.count("\n", 0, self.at)
        self._text, self.at = self._text[self.at :], 0
        if len(self._text) > MAX_RECORD_BYTES:
            self.fail(f"a row is longer than {MAX_RECORD_BYTES:,} characters, or not closed,", 0)
        block = self._stream.read(BLOCK_BYTES)
        self._ended = not block
        try:
            self._text += self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError:
            self.fail("a byte that is not UTF-8 (convert the file with iconv)", len(self._text))
        return not self._ended


def _read_object(stream: Text, name: str) -> Iterator[Record]:
    remedy = "write it as a list or as JSON Lines, as with jq -c '.[]'"
    data = read_whole(stream, name, MAX_JSON_BYTES, remedy)
    if not data.strip():
        return
    for number, row in enumerate(_rows(_parse(decode(data, name), name)), start=1):
        _row(row, f"{name}:{number}")
        yield Record.of(row, f":{number}")


def _rows(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [value]
    parts = list(value.values())
    if len(parts) == 1 and isinstance(parts[0], list) and isinstance((parts[0] or [0])[0], dict):
        return parts[0]
    if not all(isinstance(part, dict) and part for part in parts):
        return [value]
    keys = list(parts[0])
    if all(list(part) == keys for part in parts) and keys == [str(i) for i in range(len(keys))]:
        return [{column: part[key] for column, part in value.items()} for key in keys]
    return [{"key": key, **part} for key, part in value.items()]


def _parse(text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(
            f"{where} is not valid JSON: {error.msg} at {line}column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that occurs twice in it is an error, because one value would be lost."""
    row = dict(items)
    if len(row) < len(items):
        raise ValueError(
            f"the key {first_twice(key for key, _ in items)!r} occurs twice in one object"
        )
    for key in CALLS & row.keys():
        row[key] = _with_numbers(row[key])
    return row


class _Written(str):
    """A number that Python would write otherwise, as it stands in the file: 1.10 and 1E5."""


def _number(text: str) -> float | _Written:
    """A number; its text where only that keeps how it is written, since a row is kept as JSON."""
    number = float(text)
    return number if repr(number) == text or not math.isfinite(number) else _Written(text)


def _with_numbers(value: Any) -> Any:
    """A value whose numbers are numbers: as text, they would be quoted in a call of a tool."""
    if isinstance(value, _Written):
        return float(value)
    if isinstance(value, dict):
        return {key: _with_numbers(each) for key, each in value.items()}
    return [_with_numbers(each) for each in value] if isinstance(value, list) else value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number)


def _row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        kind = "an empty object" if value == {} else f"a {type(_with_numbers(value)).__name__}"
        raise ValueError(f"{where} is {kind}, not an object with a value for each column")
    _check_depth(value, where)
    return value


def _check_depth(row: dict[str, Any], where: str) -> None:
    level: list[Any] = [row]
    for _ in range(MAX_DEPTH):
        values = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for part in values for value in part if isinstance(value, dict | list)]
        if not level:
            return
    raise ValueError(f"{where} is nested too deeply, more than {MAX_DEPTH} levels")
