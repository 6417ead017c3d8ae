"""Bytes out of a file that nobody has checked: decompressed, cut into lines, capped, decoded."""

import bz2
import codecs
import hashlib
import io
import json
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 20
MAX_RECORD_BYTES = 16 << 20  # a book is 1 MB; a longer line is a file without line ends
BOMB_BYTES, BOMB_RATIO = 64 << 20, 200  # prose packs 3 to 20 times, a bomb 1,000 times and more


@dataclass(frozen=True)
class Record:
    """One row, where it stood in its file (":line", ":row" or "") and the sha256 of its bytes."""

    row: dict[str, Any]
    place: str
    sha256: str

    @classmethod
    def of(cls, row: dict[str, Any], place: str, data: bytes | None = None) -> "Record":
        """The record of these bytes; of a row that has none of its own, of its sorted JSON."""
        if data is None:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False)
            data = text.encode("utf-8", "surrogatepass")
        return cls(row, place, hashlib.sha256(data).hexdigest())

    @classmethod
    def of_document(cls, text: str, name: str, title: str, data: bytes) -> "Record":
        """The record of a file that is one document."""
        return cls.of({"text": text, "path": name, "title": title}, "", data)


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


COMPRESSIONS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: pa.CompressedInputStream(file, "gzip"),
    ".zst": lambda file: pa.CompressedInputStream(file, "zstd"),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}


class Unpacked(io.RawIOBase):
    """A decompressed stream that stops at a bomb, and says which file is cut or broken."""

    def __init__(self, file: BinaryIO, name: str, unpack: Callable[[BinaryIO], Any]) -> None:
        self._file, self._name, self._bytes = file, name, 0
        self._stream = unpack(file)

    def read(self, size: int = -1) -> bytes:
        try:
            block = self._stream.read(size if size >= 0 else BLOCK_BYTES)
        except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self._name} is cut short or broken: {error}") from None
        self._bytes += len(block)
        if self._bytes > BOMB_BYTES and self._bytes > BOMB_RATIO * max(1, self._file.tell()):
            raise ValueError(
                f"{self._name} unpacks to more than {BOMB_RATIO} times its size: a bomb? "
                "Unpack it yourself if you trust it"
            )
        return block


def open_zip(file: BinaryIO, name: str) -> tuple[BinaryIO, str]:
    """The one data file in a .zip archive, and its name after the archive's."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{name} is cut short or broken: {error}") from None
    inside = [each for each in archive.infolist() if not each.is_dir()]
    data = [each for each in inside if not re.search(r"(^|/)(\.|__MACOSX/)", each.filename)]
    if len(data) != 1 or data[0].flag_bits & 1:
        what = "a password" if len(data) == 1 else f"{len(data)} files"
        raise ValueError(f"{name} has {what}, not one file to read: unpack it, as with unzip")
    try:
        opened = archive.open(data[0])
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{name} cannot be unpacked ({error}): unpack it yourself") from None
    return Unpacked(file, name, lambda _: opened), f"{name}/{data[0].filename}"


@contextmanager
def seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """All of a stream in a temporary file, for formats that are read from their end."""
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        file.seek(0)
        yield file


class Text(io.RawIOBase):
    """A stream of UTF-8, whatever the file is in; its first bytes (all, if `is_whole`) are `head`.

    A byte order mark says UTF-16; anything else than UTF-8 must be named (`encoding`).
    """

    def __init__(self, stream: BinaryIO, name: str, encoding: str, repairs: Counter[str]) -> None:
        self._stream, self._name = stream, name
        head = _read_up_to(stream, BLOCK_BYTES)
        self.is_whole = len(head) < BLOCK_BYTES
        utf16 = head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if utf16 and not encoding else encoding
        self._encoding, self._decoder = encoding, None
        if encoding:
            self._decoder = codecs.getincrementaldecoder(encoding)()
            repairs[f"file in {encoding}, read as such"] += 1
        self.head = self._rest = self._recoded(head)

    def read(self, size: int = -1) -> bytes:
        if self._rest:
            block, self._rest = self._rest, b""
            return block
        return self._recoded(self._stream.read(BLOCK_BYTES if size < 0 else size))

    def _recoded(self, block: bytes) -> bytes:
        if self._decoder is None:
            return block
        try:
            while True:  # one byte of UTF-16 is no text yet, which must not pass for the end
                text = self._decoder.decode(block, final=not block)
                if text or not block:
                    return text.encode("utf-8", "surrogatepass")
                block = self._stream.read(BLOCK_BYTES)
        except UnicodeError as error:
            raise ValueError(f"{self._name} is not {self._encoding}: {error}") from None


def read_lines(stream: BinaryIO, name: str, end: bytes = b"\n") -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), byte offset and bytes of each line, without its end and a leading BOM."""
    number, offset, rest = 0, 0, b""
    while block := stream.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(end)
        for line in whole:
            number += 1
            yield _line(line, name, number, offset)
            offset += len(line) + 1
        _line(rest, name, number + 1, offset)
    if rest:
        yield _line(rest, name, number + 1, offset)


def _line(line: bytes, name: str, number: int, offset: int) -> tuple[int, int, bytes]:
    if len(line) > MAX_RECORD_BYTES:
        raise ValueError(
            f"{name}:{number} is longer than {MAX_RECORD_BYTES:,} bytes; is it one document a line?"
        )
    if number == 1 and line.startswith(BOM):
        offset, line = offset + len(BOM), line.removeprefix(BOM)
    return number, offset, line.removesuffix(b"\r")


def decode(data: bytes, where: str, offset: int = 0) -> str:
    """The bytes as text; an error names the byte, counted from the start of the file."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte {offset + error.start} is not UTF-8; name what it is as the source's "
            "`encoding` (as windows-1252), or convert the file: iconv -f windows-1252 -t UTF-8"
        ) from None


def read_whole(stream: BinaryIO, name: str, limit: int, remedy: str) -> bytes:
    """All of a stream, without a leading BOM; ValueError, with the remedy, above the limit."""
    data = _read_up_to(stream, limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit:,} bytes; {remedy}")
    return data.removeprefix(BOM)


def _read_up_to(stream: BinaryIO, size: int) -> bytes:
    """The next bytes, fewer than `size` only at the end: one read may give less than asked."""
    parts = []
    while size > 0 and (block := stream.read(min(size, BLOCK_BYTES))):
        parts.append(block)
        size -= len(block)
    return b"".join(parts)
