"""Bytes out of a file that nobody has checked: decompressed, cut into lines, capped, decoded."""

import hashlib
import io
import json
from collections.abc import Iterator
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


def row_sha256(row: dict[str, Any]) -> str:
    """The hash of a row that has no bytes of its own: that of its sorted JSON."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def decompress(file: BinaryIO, name: str, compression: str) -> BinaryIO:
    """The file itself, or a stream that unpacks it ("gzip" or "zstd") and stops at a bomb."""
    return _Unpacked(file, name, compression) if compression else file


class _Unpacked(io.RawIOBase):
    """A decompressed stream that stops at a bomb, and says which file is cut or broken."""

    def __init__(self, file: BinaryIO, name: str, compression: str) -> None:
        self._file, self._name, self._bytes = file, name, 0
        self._stream = pa.CompressedInputStream(file, compression)

    def read(self, size: int = -1) -> bytes:
        try:
            block = self._stream.read(size if size >= 0 else BLOCK_BYTES)
        except OSError as error:
            raise ValueError(f"{self._name} is cut short or broken: {error}") from None
        self._bytes += len(block)
        if self._bytes > BOMB_BYTES and self._bytes > BOMB_RATIO * max(1, self._file.tell()):
            raise ValueError(
                f"{self._name} unpacks to more than {BOMB_RATIO} times its size: a bomb? "
                "Unpack it yourself if you trust it"
            )
        return block


def read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), byte offset and bytes of each line, without its end and a leading BOM."""
    number, offset, rest = 0, 0, b""
    while block := stream.read(BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
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
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise ValueError(
            f"{where}: byte {offset + error.start} is not UTF-8"
            + (" (it looks like UTF-16)" if utf16 else "")
            + "; convert the file, as with iconv -f ENCODING -t UTF-8"
        ) from None


def read_whole(stream: BinaryIO, name: str, limit: int, remedy: str) -> bytes:
    """All of a stream, without a leading BOM; ValueError, with the remedy, above the limit."""
    parts, size = [], 0
    while block := stream.read(BLOCK_BYTES):
        parts.append(block)
        size += len(block)
        if size > limit:
            raise ValueError(f"{name} is larger than {limit:,} bytes; {remedy}")
    return b"".join(parts).removeprefix(BOM)
