"""Rows out of an open file of any kind that a team keeps its data in, a small part in memory.

The name decides on the format. Whatever is wrong with a file is one ValueError that names the
file, the line, and what to do.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from stages.fetch.json_rows import read_json
from stages.fetch.papers import read_docx, read_pdf
from stages.fetch.streams import (
    COMPRESSIONS,
    MAX_RECORD_BYTES,
    Record,
    Text,
    Unpacked,
    decode,
    open_zip,
    read_whole,
    seekable,
)
from stages.fetch.tables import read_arrow, read_csv, read_parquet, read_sheets

JSON = (".json", ".jsonl", ".ndjson")
SEPARATED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
COLUMNS = {".parquet": read_parquet, ".arrow": read_arrow, ".feather": read_arrow}
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
PACKED = {**dict.fromkeys(SHEETS, read_sheets), ".pdf": read_pdf, ".docx": read_docx}
HTML = (".html", ".htm", ".xhtml")
_TEXT = """
.txt .md .markdown .rst .org .adoc .tex .xml .css .py .pyi .js .mjs .jsx .ts .tsx .c .h .cc .cpp
.cxx .hpp .cs .java .kt .scala .go .rs .rb .php .pl .lua .r .jl .m .swift .sh .sql .hs .ml .ex .erl
.clj .yaml .yml .toml .ini
"""
TEXT = frozenset(_TEXT.split())
KNOWN = sorted([*JSON, *SEPARATED, *COLUMNS, *PACKED, *HTML, *TEXT])
REMEDIES = {
    ".doc .rtf .odt .wpd .pages": "convert it, as with libreoffice --headless --convert-to docx",
    ".ppt .pptx .odp .key": "convert it, as with libreoffice --headless --convert-to pdf",
    ".epub .mobi .fb2": "convert it, as with pandoc -t plain -o NAME.txt",
    ".ipynb": "convert it, as with jupyter nbconvert --to markdown",
    ".numbers": "export it as .xlsx",
    ".tar .tgz .7z .rar .tar.gz .tar.zst .tar.bz2 .tar.xz": "unpack it and name the files in it",
    ".db .sqlite .sqlite3": "export its table, as with sqlite3 -header -csv NAME 'SELECT ...'",
    ".pkl .pickle .pt .npy .npz .joblib": "write it as Parquet (a pickle can run code)",
    ".dta .sav .sas7bdat .h5 .hdf5 .orc .avro .rds": "write it as Parquet, as with pandas",
    ".png .jpg .jpeg .gif .webp .tif .tiff .bmp .heic": "read its text with tesseract first",
    ".mp3 .wav .m4a .flac .ogg .mp4 .mov .mkv .webm": "transcribe it first",
    ".warc .warc.gz": "make it a source of its own, with WARC files alone",
}

KeepPage = Callable[[bytes, str], dict[str, Any]]  # a page's HTML and name -> the row for it


def read(
    file: BinaryIO,
    name: str,
    repairs: Counter[str],
    columns: tuple[str, ...] = (),
    encoding: str = "",
    keep_page: KeepPage | None = None,
) -> Iterator[Record]:
    """Yield the rows of an open binary file; of Parquet and Arrow only `columns`, if any are named.

    `repairs` counts what was mended or told on the way, by what it was: numbers that JSON does not
    have (NaN, Infinity) become null, as in pandas; halves of surrogate pairs become U+FFFD.
    `encoding` is that of a text file that is not UTF-8; `keep_page` puts a page's HTML where
    preprocess finds it, and gives its row.
    Raises ValueError for a format that is not known, and for any broken, cut or empty file; a text
    file without text is not an error, but counted.
    """
    zipped = name.lower().endswith(".zip")
    if zipped:
        file, name = open_zip(file, name)
    suffix, compression = format_of(name)
    if zipped and suffix in COLUMNS:
        with seekable(file) as unpacked:
            yield from read(unpacked, name, repairs, columns)
        return
    stream = Unpacked(file, name, COMPRESSIONS[compression]) if compression else file
    found = False
    try:
        records = _records(stream, name, suffix, repairs, columns, encoding, keep_page)
        for record in mended(records, repairs):
            found = True
            yield record
    except RecursionError:
        raise ValueError(f"{name}: a row is nested too deeply") from None
    if not found and (suffix in TEXT or suffix in HTML):
        repairs["empty document, left out"] += 1
    elif not found:
        raise ValueError(f"{name} is empty: it holds no row")


def mended(records: Iterator[Record], repairs: Counter[str]) -> Iterator[Record]:
    """The records without what JSON or UTF-8 cannot hold; each repair is counted."""
    for record in records:
        yield Record(_mend(record.row, repairs), record.place, record.sha256)


def format_of(name: str) -> tuple[str, str]:
    """The suffix that decides on the format, and that of the compression ("" for none).

    Raises ValueError, with what to do, for a file that cannot be read.
    """
    path = PurePosixPath(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    suffix = (path.with_suffix("") if compression else path).suffix
    if suffix == ".zip" and not compression:
        return suffix, ""
    if suffix not in KNOWN:
        raise ValueError(f"{name} is of no known format: {_remedy(path)}")
    if compression and (suffix in COLUMNS or suffix in PACKED):
        raise ValueError(f"{name}: {suffix} is compressed inside already; decompress the file")
    return suffix, compression


def _remedy(path: PurePosixPath) -> str:
    for suffixes, remedy in REMEDIES.items():
        if any(path.name.endswith(suffix) for suffix in suffixes.split()):
            return remedy
    return f"known are, also with {' '.join(COMPRESSIONS)} or alone in a .zip: {' '.join(KNOWN)}"


def _records(
    stream: BinaryIO,
    name: str,
    suffix: str,
    repairs: Counter[str],
    columns: tuple[str, ...],
    encoding: str,
    keep_page: KeepPage | None,
) -> Iterator[Record]:
    if suffix in PACKED:
        return PACKED[suffix](stream, name)
    if suffix in COLUMNS:
        return COLUMNS[suffix](stream, name, columns)
    if suffix in HTML:
        return _read_page(stream, name, keep_page)
    text = Text(stream, name, encoding, repairs)
    if suffix in JSON:
        return read_json(text, name)
    if suffix in SEPARATED:
        return read_csv(text, name, repairs, SEPARATED[suffix])
    return _read_text(text, name)


def _read_page(stream: BinaryIO, name: str, keep_page: KeepPage | None) -> Iterator[Record]:
    data = read_whole(stream, name, MAX_RECORD_BYTES, "a page is one document: split it")
    if keep_page is None:
        raise ValueError(f"{name} is a web page, which only a source can be: write its text")
    if data.strip():
        yield Record.of(keep_page(data, name), "", data)


def _read_text(stream: Text, name: str) -> Iterator[Record]:
    """One document a file: its text, the path, and the name without suffixes as its title."""
    data = read_whole(stream, name, MAX_RECORD_BYTES, "a text file is one document: split it")
    text = decode(data, name)
    if text.strip():
        title = PurePosixPath(name).name.split(".")[0] or PurePosixPath(name).name
        yield Record.of_document(text, name, title, data)


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
