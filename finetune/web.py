"""What fetch and preprocess both read of the web: WARC records, content types, JSON-LD."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from w3lib.encoding import html_to_unicode
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

HTML = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True)
class WarcRecord:
    """One record of a WARC file (ISO 28500): an answer of a server, where `status` is not "".

    `body` is decompressed and at most one byte longer than the limit it was read with; `offset`
    is where the record starts in the file.
    """

    kind: str
    url: str
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    offset: int

    @property
    def content_type(self) -> str:
        """The value of Content-Type, or ""."""
        return next((value for key, value in self.headers if key.lower() == "content-type"), "")


def read_warc_records(file: BinaryIO, name: str, max_bytes: int) -> Iterator[WarcRecord]:
    """The records of an open WARC file from where it stands; ValueError where it is broken."""
    try:
        archive = ArchiveIterator(file)
        for record in archive:
            http = record.http_headers if record.rec_type == "response" else None
            yield WarcRecord(
                kind=record.rec_type,
                url=record.rec_headers.get_header("WARC-Target-URI") or "",
                status=http.get_statuscode() if http else "",
                headers=list(http.headers) if http else [],
                body=record.content_stream().read(max_bytes + 1) if http else b"",
                offset=archive.get_record_offset(),
            )
    except (ArchiveLoadFailed, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is no WARC file of records compressed one by one: {reason}"
        ) from None


def read_warc_record(path: Path, offset: int, max_bytes: int) -> WarcRecord:
    """The record at an offset; ValueError where there is none: then the capture is another one
    than the rows belong to."""
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return next(read_warc_records(file, path.name, max_bytes))
        except (StopIteration, ValueError) as error:
            raise ValueError(
                f"{path} has no record at {offset} ({error}); fetch it again"
            ) from None


def is_html(content_type: str) -> bool:
    """Whether a Content-Type is that of a page."""
    return content_type.partition(";")[0].strip().lower() in HTML


def decode_html(content_type: str, body: bytes) -> str:
    """A page's HTML, decoded as a browser would."""
    return html_to_unicode(content_type or None, body)[1]


def read_json_ld(scripts: Iterable[str]) -> Iterator[Any]:
    """The value of each `<script type="application/ld+json">`, given by its text.

    A script that is no JSON is left out: it is the page's own fault, and its other markup is left.
    """
    for text in scripts:
        try:
            yield json.loads(text, strict=False)
        except (ValueError, RecursionError):
            continue
