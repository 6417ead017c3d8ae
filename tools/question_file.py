"""JSON lines with questions in, the same rows with answers out."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANSWER, BASE_ANSWER = "answer", "base_answer"


def read_question_rows(path: Path, column: str, added: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a file of JSON objects, in order; lines without a character are no rows.

    Raises ValueError naming the first line that is no JSON object, has no text in `column`, or has
    one of the columns that are to be `added`; and where there is no row.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip(b"\xef\xbb\xbf \t\r"):
            rows.append(_read_row(line, column, added, f"{path}:{number}"))
    if not rows:
        raise ValueError(f"{path} has no rows: it needs a JSON object a line")
    return rows


def name_row(path: Path, row: int) -> str:
    """`path:line` of a row, counted from 0."""
    lines = path.read_bytes().split(b"\n")
    there = [n for n, line in enumerate(lines, start=1) if line.strip(b"\xef\xbb\xbf \t\r")]
    return f"{path}:{there[row]}"


def check_out(path: Path | None, source: Path) -> None:
    """Raise ValueError where `path` could not be written, or is the file that is read."""
    if path is None:
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"--out is {path}: name a file in a folder that exists")
    if path.exists() and path.samefile(source):
        raise ValueError(f"--out is {path}, the file that is read: name another")


def write_rows(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines, all or nothing; to standard output where `path` is None."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path is None:
        sys.stdout.write(text)
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def _read_row(line: bytes, column: str, added: Sequence[str], place: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse)
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{place} is {type(row).__name__}: each line must be a JSON object")
    if not isinstance(row.get(column), str) or not row[column].strip():
        there = ", ".join(map(repr, row)) or "nothing"
        raise ValueError(
            f"{place} has no text in {column!r}: it has {there}; --column names the question's"
        )
    if taken := [each for each in added if each in row]:
        raise ValueError(f"{place} has {taken[0]!r} already: rename it, it would be overwritten")
    return row


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
