"""WARC files of one's own as a source: they become its capture, with a row for each page."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from finetune.records import RowWriter
from finetune.web import WarcRecord, decode_html, is_html, read_warc_records
from stages.fetch.captures import CAPTURE, Page, row_of
from stages.fetch.licences import find_licences, spdx
from stages.fetch.sources import Part, log, told
from stages.fetch.streams import BLOCK_BYTES, COMPRESSIONS, Unpacked

MAX_PAGE_BYTES = 16 << 20


def copy(out: Path, name: str, source: Any, parts: list[Part], counts: Counter[str]) -> None:
    """Take WARC files of one's own as the capture: the files of a source, one after the other.

    The source's `license` holds for pages that name none; a page that names another one is left
    out and counted. It may name several: CC0-1.0 OR CC-BY-4.0.
    """
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
            html = decode_html(page.header("Content-Type"), page.body)
            found, parts = find_licences(html, page.url, page.header("Link"))
            if refused := sorted({*found, *parts} - allowed):
                counts[f"licence not allowed: {refused[0]}"] += 1
            else:
                license = " AND ".join(sorted(found)) or source.license
                how = f"{page.url} ({', '.join(found.values())})" if found else source.evidence
                writer.write(row_of(page, start + offset, part.split, license, how))
        file.seek(0)
        shutil.copyfileobj(file, capture)
    return writer.count - before


def _check_whole(part: Part) -> None:
    """Unpack to the end: warcio takes a file that is cut for one that ends there."""
    with part.open() as file:
        unpacked = Unpacked(file, part.name, COMPRESSIONS[".gz"])
        while unpacked.read(BLOCK_BYTES):
            pass


def read(file: BinaryIO, name: str, counts: Counter[str]) -> Iterator[tuple[Page, int]]:
    """The HTML pages of a WARC file with their offsets; other records are counted."""
    for record in read_warc_records(file, name, MAX_PAGE_BYTES):
        if objection := _objection(record):
            counts[f"{objection}, left out"] += 1
        else:
            page = Page(record.url, 200, record.headers, record.body, "", 0.0, 0.0)
            yield page, record.offset


def _objection(record: WarcRecord) -> str:
    if not record.status or not record.url:
        return f"WARC record of type {record.kind}"
    if record.status != "200" or not is_html(record.content_type):
        return "answer that is no HTML page"
    if not record.body.strip() or len(record.body) > MAX_PAGE_BYTES:
        return "page that is empty or above 16 MiB"
    return ""
