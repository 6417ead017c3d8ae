"""Tables as rows: CSV of any dialect, workbooks, Parquet, Arrow and Feather."""

import base64
import csv
import datetime
import decimal
import io
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.fetch.json_rows import CALLS
from stages.fetch.streams import (
    BOM,
    MAX_RECORD_BYTES,
    Record,
    Text,
    decode,
    first_twice,
    read_lines,
    read_whole,
)

BATCH_ROWS = 64  # small, because a row may be a book
SNIFFED_LINES = 1_000
SEPARATORS = (",", ";", "\t", "|")
MAX_SHEET_BYTES = 64 << 20  # a spreadsheet is read whole, and unpacks to some twenty times its size
QUOTED = {"doublequote": True, "escapechar": None}
ESCAPED = {"doublequote": True, "escapechar": "\\"}
NARROW = {pa.float16(): np.float16, pa.float32(): np.float32}


def read_csv(stream: Text, name: str, repairs: Counter[str], usual: str = ",") -> Iterator[Record]:
    """Every value stays the text that it is: "007" is no number, and "None" is a word.

    A separator other than the usual one is told by `sep=;` in the first line, or by the first
    rows; either is counted, so that the log and the manifest say it.
    """
    end = b"\r" if b"\r" in stream.head and b"\n" not in stream.head else b"\n"
    source = read_lines(stream, name, end)
    lines = (decode(line, f"{name}:{number}", offset) + "\n" for number, offset, line in source)
    told = re.match(rb"(?:\xef\xbb\xbf)?\"?sep=(.)\"?\r?(?:\n|\r|$)", stream.head, re.IGNORECASE)
    if told:
        next(lines)
        dialect = {"delimiter": told[1].decode("latin-1"), **QUOTED}
        repairs[f"file separated by {dialect['delimiter']!r}, as its first line says"] += 1
    else:
        dialect = _sniff(stream, end, name, usual)
        if dialect != {"delimiter": usual, **QUOTED}:
            how = " with quotes behind backslashes" if dialect["escapechar"] else ""
            separator = dialect["delimiter"]
            repairs[f"file separated by {separator!r}{how}, told by its first rows"] += 1
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = _numbered(csv.reader(lines, strict=True, **dialect), name, int(bool(told)))
    yield from _records(rows, name, dialect["delimiter"])


def _sniff(stream: Text, end: bytes, name: str, usual: str) -> dict[str, Any]:
    """The dialect in which the first rows have as many fields as the header, and more than one.

    Where no row has, the usual one; ValueError where two dialects fit equally.
    """
    whole = stream.head if stream.is_whole else stream.head.rpartition(end)[0]
    lines = whole.removeprefix(BOM).decode("utf-8", "replace").split(end.decode())
    cut = not stream.is_whole or len(lines) > SNIFFED_LINES
    lines = [line.removesuffix("\r") + "\n" for line in lines[:SNIFFED_LINES]]
    for quoting in (QUOTED, ESCAPED):
        dialects = [{"delimiter": each, **quoting} for each in SEPARATORS]
        shares = [_share(lines, cut, dialect) for dialect in dialects]
        for least in (1.0, 0.5):
            found = [d for d, share in zip(dialects, shares, strict=True) if share >= least]
            tabs = [each for each in found if each["delimiter"] == usual == "\t"]
            if tabs or len(found) == 1:
                return (tabs or found)[0]
            if found:
                each = " or ".join(repr(dialect["delimiter"]) for dialect in found)
                raise ValueError(
                    f"{name} may be separated by {each}: say which by a first line, as in sep=;"
                )
    return {"delimiter": usual, **QUOTED}


def _share(lines: list[str], cut: bool, dialect: dict[str, Any]) -> float:
    """The share of rows that are as wide as the header; 0 for one column or no valid rows."""
    widths, rows = [], csv.reader(lines, strict=True, **dialect)
    try:
        widths = [len(row) for row in rows if row]
    except csv.Error:
        if not cut or rows.line_num < len(lines):
            return 0.0
        widths = [len(row) for row in csv.reader(lines[:1], **dialect)]
    if not widths or widths[0] < 2:
        return 0.0
    return sum(width == widths[0] for width in widths) / len(widths)


def _numbered(rows: Any, name: str, before: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank with the number of its first line."""
    skipped = before
    try:
        for values in rows:
            if any(values):
                yield before + 1, values
            before = skipped + rows.line_num
    except csv.Error as error:
        raise ValueError(f"{name}:{before + 1} is not valid CSV: {error}") from None


def _records(
    rows: Iterator[tuple[int, list[str]]], name: str, separator: str, sheet: str = ""
) -> Iterator[Record]:
    """The rows behind the header as records."""
    _, first = next(rows, (0, None))
    if first is None:
        return
    header = _header(first, name, separator)
    for number, values in rows:
        if len(values) != len(header):
            raise ValueError(
                f"{name}:{number} has {len(values)} fields, the header has {len(header)}"
            )
        row = dict(zip(header, values, strict=True))
        yield Record.of(row, f"{sheet}:{number}")


def _header(values: list[str], name: str, separator: str) -> list[str]:
    """The column names; one without a name (pandas' index) gets its number, as in `column_1`."""
    names = [value.strip() or f"column_{number}" for number, value in enumerate(values, start=1)]
    if (twice := first_twice(names)) is not None:
        raise ValueError(f"{name}: the column {twice!r} occurs twice in the header")
    other = [each for each in SEPARATORS if each != separator and each in names[0]]
    if len(names) == 1 and other and separator:
        raise ValueError(
            f"{name} has one column, {names[0]!r}: it seems to be separated by {other[0]!r}, where "
            f"{separator!r} is expected, but its rows have other numbers of fields"
        )
    return names


def read_sheets(stream: BinaryIO, name: str) -> Iterator[Record]:
    """The rows of every sheet of a workbook (.xlsx, .xls, .ods), each under its own header.

    Values are text: "007" stays, a cell without a value is "". `:Sheet1:3` is the third row.
    """
    import pandas as pd  # here, because it takes half a second that most sources do not need

    data = read_whole(stream, name, MAX_SHEET_BYTES, "save it as CSV or Parquet")
    try:
        as_text = {"header": None, "dtype": object, "keep_default_na": False, "engine": "calamine"}
        sheets = pd.read_excel(io.BytesIO(data), sheet_name=None, **as_text)
    except Exception as error:  # the parser's own kinds, one for each way of being broken
        raise ValueError(f"{name} is no whole workbook without a password: {error}") from None
    for sheet, table in sheets.items():
        rows = (list(map(_cell, values)) for values in table.itertuples(index=False))
        numbered = ((n, values) for n, values in enumerate(rows, start=1) if any(values))
        yield from _records(numbered, f"{name}:{sheet}", "", f":{sheet}")


def _cell(value: Any) -> str:
    """A cell as text; a truth value as JSON has it, so that it is one word in every format."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def read_parquet(file: BinaryIO, name: str, columns: tuple[str, ...] = ()) -> Iterator[Record]:
    """The rows of an open Parquet file; of its columns only those named, if any are."""
    try:
        with pq.ParquetFile(file) as table:
            _check_names(table.schema_arrow.names, columns, name)
            batches = table.iter_batches(BATCH_ROWS, columns=list(columns) or None)
            yield from _arrow_records(batches, name)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not a whole Parquet file: {error}") from None


def read_arrow(file: BinaryIO, name: str, columns: tuple[str, ...] = ()) -> Iterator[Record]:
    """The rows of an open Arrow file: Feather, or as `datasets` writes them, or a stream."""
    magic = file.read(6)
    file.seek(0)
    try:
        opened = (pa.ipc.open_file if magic == b"ARROW1" else pa.ipc.open_stream)(file)
        with opened as table:
            _check_names(table.schema.names, columns, name)
            yield from _arrow_records(_batches(table, list(columns)), name)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not a whole Arrow or Feather file: {error}") from None


def _batches(table: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Small batches of an Arrow file (by number) or stream (one after the other)."""
    counted = isinstance(table, pa.ipc.RecordBatchFileReader)
    wholes = map(table.get_batch, range(table.num_record_batches)) if counted else table
    for whole in wholes:
        for start in range(0, len(whole), BATCH_ROWS):
            batch = whole.slice(start, BATCH_ROWS)
            yield batch.select(columns) if columns else batch


def _arrow_records(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[Record]:
    done = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except (ValueError, OverflowError) as error:  # text that is not UTF-8, the year 200,000
            where = f"rows {done + 1} to {done + len(batch)}"
            raise ValueError(f"{name}: one of {where} cannot be read: {error}") from None
        narrow = {each.name: each.type for each in batch.schema if _is_narrow(each.type)}
        for number, values in enumerate(rows, start=done + 1):
            values |= {key: _shortest(values[key], kind) for key, kind in narrow.items()}
            row = {key: plain(value, name, key) for key, value in values.items()}
            yield Record.of(row, f":{number}")
        done += len(batch)


def _is_narrow(kind: pa.DataType) -> bool:
    """Whether a type is, or holds, numbers of 16 or 32 bits."""
    return _unwrapped(kind) in NARROW or any(map(_is_narrow, _fields(kind)))


def _shortest(value: Any, kind: pa.DataType) -> Any:
    """A value whose narrow numbers are what they were written as: 4.99, not 4.989999771118164.

    That is the number with the shortest text among those that are the same in its width.
    """
    if value is None:
        return None
    if width := NARROW.get(_unwrapped(kind)):
        return float(str(width(value)))
    fields = _fields(kind)
    if isinstance(value, dict) and fields:
        parts = zip(value.items(), fields, strict=True)
        return {key: _shortest(each, field) for (key, each), field in parts}
    if isinstance(value, tuple) and fields:  # an entry of a map
        return tuple(map(_shortest, value, fields))
    if isinstance(value, list) and fields:
        return [_shortest(each, fields[0]) for each in value]
    return value


def _fields(kind: pa.DataType) -> list[pa.DataType]:
    """The types inside of a type; of a union none, because a value does not say which it is of."""
    kind = _unwrapped(kind)
    if pa.types.is_union(kind):
        return []
    return [kind.field(number).type for number in range(kind.num_fields)]


def _unwrapped(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves, however they are packed or named."""
    if isinstance(kind, pa.BaseExtensionType):
        return _unwrapped(kind.storage_type)
    packed = isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType)
    return _unwrapped(kind.value_type) if packed else kind


def _check_names(names: list[str], wanted: tuple[str, ...], name: str) -> None:
    if (twice := first_twice(names)) is not None:
        raise ValueError(f"{name} has the column {twice!r} twice")
    if not names:
        raise ValueError(f"{name} has no column")
    for column in wanted:
        if column not in names:
            raise ValueError(f"{name} has no column {column!r}, only {', '.join(names)}")


def plain(value: Any, name: str, column: str) -> Any:
    """A value that JSON can hold: dates as ISO 8601, decimals as text, bytes as UTF-8 or base64.

    Tools and calls of them are without nulls: a struct has every key that any row has, so that a
    call of one tool would be learnt with the arguments of all others.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        parts = {str(key): plain(each, name, f"{column}.{key}") for key, each in value.items()}
        if CALLS.isdisjoint(column.split(".")):
            return parts
        return {key: each for key, each in parts.items() if each is not None}
    if isinstance(value, list | tuple):
        return [plain(each, name, column) for each in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID):
        return str(value)
    if not isinstance(value, bytes):
        kind = type(value).__name__
        raise ValueError(f"{name}: column {column!r} holds a {kind}, which is no text")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
