"""Web captures: pages as HTTP responses in a WARC file (ISO 28500), found again by their offset."""

import hashlib
import io
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import quote

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from finetune.records import Row

CAPTURE = "capture.warc.gz"
# The stored body is decompressed and whole, and nobody's session belongs in a data set.
LEFT_OUT = ("content-encoding", "transfer-encoding", "content-length", "connection", "set-cookie")


@dataclass(frozen=True)
class Page:
    """One answer: headers as (name, value) pairs, the decompressed body, times in epoch seconds.

    `robots` is what robots.txt said when it was fetched; `checked` when the server last said that
    it is still the same.
    """

    url: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    robots: str
    fetched: float
    checked: float

    def header(self, name: str) -> str:
        """The first value of a header, or ""."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


class CaptureWriter:
    """Writes pages to a WARC file; the same pages give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._writer = file, WARCWriter(file, gzip=True)

    def write(self, page: Page) -> int:
        """Add a page; returns the offset of its record."""
        offset = self._file.tell()
        headers = [(k, v) for k, v in page.headers if k.lower() not in LEFT_OUT]
        headers.append(("Content-Length", str(len(page.body))))
        status = f"{page.status} {HTTPStatus(page.status).phrase}"
        when = datetime.fromtimestamp(page.fetched, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"{page.url} {hashlib.sha256(page.body).hexdigest()}"
        record = self._writer.create_warc_record(
            page.url,
            "response",
            payload=io.BytesIO(page.body),
            length=len(page.body),
            http_headers=StatusAndHeaders(status, headers, protocol="HTTP/1.1"),
            warc_headers_dict={
                "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}>",
                "WARC-Date": when,
            },
        )
        self._writer.write_record(record)
        return offset

    def keep(self, body: bytes, name: str) -> dict[str, Any]:
        """Add the page of a local file; returns the row that stands for it."""
        url = f"http://files.invalid/{quote(name)}"  # WARC has headers for http only (RFC 2606)
        page = Page(url, 200, [("Content-Type", "text/html")], body, "", 0.0, 0.0)
        return {**_place(page, self.write(page)), "url": name, "path": name}


def row_of(page: Page, offset: int, split: str, license: str, evidence: str) -> Row:
    """The row of a page that is in the capture at that offset."""
    return Row(
        row=_place(page, offset),
        split=split,
        origin=page.url,
        sha256=hashlib.sha256(page.body).hexdigest(),
        license=license,
        evidence=evidence,
        robots=page.robots,
        etag=page.header("ETag"),
        last_modified=page.header("Last-Modified"),
    )


def _place(page: Page, offset: int) -> dict[str, Any]:
    kind = page.header("Content-Type")
    return {"url": page.url, "warc_offset": offset, "content_type": kind}
