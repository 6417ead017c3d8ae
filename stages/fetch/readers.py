"""Rows out of an open file of any kind that a team keeps its data in, a small part in memory.

The name decides on the format: JSONL, JSON, CSV, TSV, Parquet, or text and source code (one
document a file), each but Parquet also as .gz or .zst. Whatever is wrong with a file is one
ValueError that names the file and the line.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from stages.fetch.json_rows import read_json, read_jsonl
from stages.fetch.streams import MAX_RECORD_BYTES, Record, decode, decompress, read_whole
from stages.fetch.tables import read_csv, read_parquet, read_tsv

TABLES: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
_TEXT = """
.txt .md .markdown .rst .tex .xml .css .py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp .cxx
.hpp .cs .java .kt .scala .go .rs .rb .php .pl .lua .r .jl .m .swift .sh .sql .hs .ml .ex .erl .clj
.yaml .yml .toml .ini
"""
TEXT = frozenset(_TEXT.split())
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


def read(
    file: BinaryIO, name: str, repairs: Counter[str], columns: tuple[str, ...] = ()
) -> Iterator[Record]:
    """Yield the rows of an open binary file; of Parquet only `columns`, if any are named.

    `repairs` counts what was mended on the way, by what it was: numbers that JSON does not have
    (NaN, Infinity) become null, as in pandas; halves of surrogate pairs become U+FFFD.
    Raises ValueError for a format that is not known, and for any broken, cut or empty file; a text
    file without text is not an error, but counted.
    """
    suffix, compression = format_of(name)
    reader = TABLES.get(suffix, _read_text)
    if suffix == ".parquet" and columns:
        reader = partial(read_parquet, columns=columns)
    found = False
    try:
        for record in reader(decompress(file, name, compression), name):
            found = True
            yield Record(_mend(record.row, repairs), record.place, record.sha256)
    except RecursionError:
        raise ValueError(f"{name}: a row is nested too deeply") from None
    if not found and suffix in TEXT:
        repairs["empty document, left out"] += 1
    elif not found:
        raise ValueError(f"{name} is empty: it holds no row")


def format_of(name: str) -> tuple[str, str]:
    """The suffix that decides on the format, and the compression ("" for none)."""
    path = PurePosixPath(name)
    compression = COMPRESSIONS.get(path.suffix.lower(), "")
    suffix = (path.with_suffix("") if compression else path).suffix.lower()
    if suffix not in TABLES and suffix not in TEXT:
        known = " ".join(sorted([*TABLES, *TEXT]))
        raise ValueError(f"{name} is of no known format; known are, also with .gz or .zst: {known}")
    if suffix == ".parquet" and compression:
        raise ValueError(f"{name}: Parquet is compressed inside already; decompress the file")
    return suffix, compression


def _read_text(stream: BinaryIO, name: str) -> Iterator[Record]:
    """One document a file: its text, the path, and the name without suffixes as its title."""
    data = read_whole(stream, name, MAX_RECORD_BYTES, "a text file is one document: split it")
    text = decode(data, name)
    if text.strip():
        title = PurePosixPath(name).name.split(".")[0] or PurePosixPath(name).name
        row = {"text": text, "path": name, "title": title}
        yield Record(row, "", hashlib.sha256(data).hexdigest())


def _mend(value: Any, repairs: Counter[str]) -> Any:
    """The value with what neither JSON nor UTF-8 can hold replaced, and counted."""
    if isinstance(value, str):
        if value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value):
            return value
        repairs["half of a surrogate pair, now U+FFFD"] += 1
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_mend(key, repairs): _mend(each, repairs) for key, each in value.items()}
    if isinstance(value, list):
        return [_mend(each, repairs) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        repairs["number that is not finite, now null"] += 1
        return None
    return value
