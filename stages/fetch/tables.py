"""CSV, TSV and Parquet files as rows."""

import base64
import csv
import datetime
import decimal
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stages.fetch.streams import MAX_RECORD_BYTES, Record, decode, read_lines, row_sha256

BATCH_ROWS = 64  # small, because a row may be a book


def read_csv(stream: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Record]:
    """Every value stays the text that it is: "007" is no number, and "None" is a word."""
    source = read_lines(stream, name)
    lines = (decode(line, f"{name}:{number}", offset) + "\n" for number, offset, line in source)
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows, header, before = csv.reader(lines, delimiter=delimiter, strict=True), None, 0
    while values := _next_row(rows, name, before):
        number, before = before + 1, rows.line_num
        if not any(values):
            continue
        if header is None:
            header = _header(values, name, delimiter)
            continue
        if len(values) != len(header):
            raise ValueError(
                f"{name}:{number} has {len(values)} fields, the header has {len(header)}"
            )
        row = dict(zip(header, values, strict=True))
        yield Record(row, f":{number}", row_sha256(row))


def read_tsv(stream: BinaryIO, name: str) -> Iterator[Record]:
    """As CSV, with tabs."""
    return read_csv(stream, name, delimiter="\t")


def _next_row(rows: Any, name: str, before: int) -> list[str] | None:
    """The next row, [""] for a blank line, None at the end."""
    try:
        return next(rows) or [""]
    except StopIteration:
        return None
    except csv.Error as error:
        raise ValueError(f"{name}:{before + 1} is not valid CSV: {error}") from None


def _header(values: list[str], name: str, delimiter: str) -> list[str]:
    """The column names; one without a name (pandas' index) gets its number, as in `column_1`."""
    names = [value.strip() or f"column_{number}" for number, value in enumerate(values, start=1)]
    twice = [value for value, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: the column {twice[0]!r} occurs twice in the header")
    other = [each for each in ",;\t" if each != delimiter and each in names[0]]
    if len(names) == 1 and other:
        raise ValueError(
            f"{name} has one column, {names[0]!r}: it seems to be separated by {other[0]!r}, "
            f"where {delimiter!r} is expected"
        )
    return names


def read_parquet(file: BinaryIO, name: str, columns: tuple[str, ...] = ()) -> Iterator[Record]:
    """Yield the rows of an open Parquet file; ValueError names the file if it is broken."""
    number = 0
    try:
        with pq.ParquetFile(file) as table:
            _check_names(table.schema_arrow.names, columns, name)
            for batch in table.iter_batches(BATCH_ROWS, columns=list(columns) or None):
                for values in _values(batch, name, number):
                    number += 1
                    row = {key: _plain(value, name, key) for key, value in values.items()}
                    yield Record(row, f":{number}", row_sha256(row))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is not a whole Parquet file: {error}") from None


def _values(batch: pa.RecordBatch, name: str, before: int) -> list[dict[str, Any]]:
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, the year 200,000
        rows = f"rows {before + 1} to {before + len(batch)}"
        raise ValueError(f"{name}: one of {rows} cannot be read: {error}") from None


def _check_names(names: list[str], wanted: tuple[str, ...], name: str) -> None:
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice or not names:
        what = f"the column {twice[0]!r} twice" if twice else "no column"
        raise ValueError(f"{name} has {what}")
    for column in wanted:
        if column not in names:
            raise ValueError(f"{name} has no column {column!r}, only {', '.join(names)}")


def _plain(value: Any, name: str, column: str) -> Any:
    """A value that JSON can hold: dates as ISO 8601, decimals as text, bytes as UTF-8 or base64."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(each, name, column) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, name, column) for each in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta | uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return _text(value)
    raise ValueError(f"{name}: column {column!r} holds a {type(value).__name__}, which is no text")


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
