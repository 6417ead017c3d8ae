"""Web captures: pages as HTTP responses in a WARC file (ISO 28500), found again by their offset."""

import hashlib
import io
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from w3lib.encoding import html_to_unicode
from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from finetune.records import Row, RowWriter
from stages.fetch.licences import find_licences, spdx
from stages.fetch.sources import Part, log, told
from stages.fetch.streams import BLOCK_BYTES, decompress

CAPTURE = "capture.warc.gz"
HTML = ("text/html", "application/xhtml+xml")
MAX_PAGE_BYTES = 16 << 20
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


def row_of(page: Page, offset: int) -> dict[str, Any]:
    """The row that says where a page is in the capture."""
    kind = page.header("Content-Type")
    return {"url": page.url, "warc_offset": offset, "content_type": kind}


def text_of(page: Page) -> str:
    """The page's HTML, decoded as a browser would."""
    return html_to_unicode(page.header("Content-Type") or None, page.body)[1]


def is_html(content_type: str) -> bool:
    """Whether a Content-Type is that of a page."""
    return content_type.partition(";")[0].strip().lower() in HTML


def copy(out: Path, name: str, source: Any, parts: list[Part]) -> None:
    """Take WARC files of one's own as the capture: the files of a source, one after the other.

    The source's `license` holds for pages that name none; a page that names another one is left
    out and counted. It may name several: CC0-1.0 OR CC-BY-4.0.
    """
    counts: Counter[str] = Counter()
    files = []
    with RowWriter(out) as writer, (writer.partial / CAPTURE).open("wb") as capture:
        for part in parts:
            rows = _copy_part(part, source, writer, capture, counts)
            files.append({"path": part.name, "split": part.split, "rows": rows, **part.proof})
        if not writer.count:
            raise ValueError(f"data.files.{name}: no HTML page in its WARC files{told(counts)}")
        counts["rows"] = writer.count
        manifest = {"source": name, "kind": "files", "parameters": asdict(source)}
        writer.write_manifest({**manifest, "files": files, "counts": dict(counts)})
    log.info("fetch %s: %d pages of %d file(s)%s", name, writer.count, len(files), told(counts))


def _copy_part(
    part: Part, source: Any, writer: RowWriter, capture: BinaryIO, counts: Counter[str]
) -> int:
    """Append a WARC file to the capture, and a row for each page; returns their number."""
    before, start = writer.count, capture.tell()
    allowed = {spdx(each) for each in source.license.split(" OR ")}
    _check_whole(part)
    with part.open() as file:
        for page, offset in read(file, part.name, counts):
            found = find_licences(text_of(page), page.url, page.header("Link"))
            if refused := sorted(set(found) - allowed):
                counts[f"licence not allowed: {refused[0]}"] += 1
            else:
                writer.write(_raw(page, start + offset, part.split, source, found))
        file.seek(0)
        shutil.copyfileobj(file, capture)
    return writer.count - before


def _check_whole(part: Part) -> None:
    """Unpack to the end: warcio takes a file that is cut for one that ends there."""
    with part.open() as file:
        unpacked = decompress(file, part.name, "gzip")
        while unpacked.read(BLOCK_BYTES):
            pass


def _raw(page: Page, offset: int, split: str, source: Any, found: dict[str, str]) -> Row:
    return Row(
        row=row_of(page, offset),
        split=split,
        origin=page.url,
        sha256=hashlib.sha256(page.body).hexdigest(),
        license=" AND ".join(sorted(found)) or source.license,
        evidence=f"{page.url} ({', '.join(found.values())})" if found else source.evidence,
        etag=page.header("ETag"),
        last_modified=page.header("Last-Modified"),
    )


def read(file: BinaryIO, name: str, counts: Counter[str]) -> Iterator[tuple[Page, int]]:
    """The HTML pages of a WARC file with their offsets; other records are counted."""
    try:
        archive = ArchiveIterator(file)
        for record in archive:
            page = _page(record, counts)
            if page is not None:
                yield page, archive.get_record_offset()
    except (ArchiveLoadFailed, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is no WARC file of records compressed one by one: {reason}"
        ) from None


def _page(record: Any, counts: Counter[str]) -> Page | None:
    url = record.rec_headers.get_header("WARC-Target-URI")
    if record.rec_type != "response" or record.http_headers is None or not url:
        counts[f"WARC record of type {record.rec_type}, left out"] += 1
        return None
    headers = record.http_headers.headers
    status = record.http_headers.get_statuscode()
    if status != "200" or not is_html(record.http_headers.get_header("Content-Type") or ""):
        counts["answer that is no HTML page, left out"] += 1
        return None
    body = record.content_stream().read(MAX_PAGE_BYTES + 1)
    if not body.strip() or len(body) > MAX_PAGE_BYTES:
        counts["page that is empty or above 16 MiB, left out"] += 1
        return None
    return Page(url, 200, [(k, v) for k, v in headers], body, "", 0.0, 0.0)
