"""JSON Lines and JSON files as rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from stages.fetch.streams import Record, decode, read_lines, read_whole, row_sha256

MAX_JSON_BYTES = 256 << 20  # a JSON file is read whole, and needs about eight times its size
MAX_DEPTH = 100  # the same on every Python: what its own parser takes differs


def read_jsonl(stream: BinaryIO, name: str) -> Iterator[Record]:
    """A row a line; blank lines are skipped."""
    for number, offset, line in read_lines(stream, name):
        if line.strip():
            where = f"{name}:{number}"
            row = _row(_parse(decode(line, where, offset), where), where)
            yield Record(row, f":{number}", hashlib.sha256(line).hexdigest())


def read_json(stream: BinaryIO, name: str) -> Iterator[Record]:
    """A list of rows; an object of rows; an object of columns (pandas' own); or one row."""
    data = read_whole(stream, name, MAX_JSON_BYTES, "write it as JSONL, a row a line")
    if not data.strip():
        return
    for number, row in enumerate(_rows(_parse(decode(data, name), name)), start=1):
        _row(row, f"{name}:{number}")
        yield Record(row, f":{number}", row_sha256(row))


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
        twice = [key for key, count in Counter(key for key, _ in items).items() if count > 1]
        raise ValueError(f"the key {twice[0]!r} occurs twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        kind = "an empty object" if value == {} else f"a {type(value).__name__}"
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
