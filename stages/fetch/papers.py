"""Files that are one document each: PDF and DOCX. The row has `text`, `path` and `title`."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from stages.fetch.streams import Record, read_whole

MAX_BYTES = 64 << 20


def read_pdf(stream: BinaryIO, name: str) -> Iterator[Record]:
    """The text of all pages; ValueError with a remedy for a scan, a password, a broken file."""
    import pypdf  # here, because most sources need neither library

    data = read_whole(stream, name, MAX_BYTES, "split it, as with qpdf --split-pages")
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError(f"{name} needs a password: remove it, as with qpdf --decrypt")
        pages = [page.extract_text().strip() for page in reader.pages]
        title = (reader.metadata or {}).get("/Title")
    except ValueError:
        raise
    except Exception as error:  # pypdf raises what its parser meets: KeyError, RecursionError ...
        raise ValueError(
            f"{name} is no whole PDF ({error}): mend it, as with qpdf, or convert it by pdftotext"
        ) from None
    if not any(pages):
        raise ValueError(f"{name} holds no text, it is a scan: read it with ocrmypdf first")
    yield Record.of_document("\f".join(pages), name, _title(title, name), data)


def read_docx(stream: BinaryIO, name: str) -> Iterator[Record]:
    """Paragraphs, headings (`## `) and tables (`a | b`), in their order."""
    import docx

    data = read_whole(stream, name, MAX_BYTES, "split it")
    try:
        document = docx.Document(io.BytesIO(data))
        blocks = [_block(each) for each in document.iter_inner_content()]
        title = document.core_properties.title
    except Exception as error:  # python-docx raises what the archive and the XML parser meet
        raise ValueError(
            f"{name} is no whole .docx without a password ({error}): save it again"
        ) from None
    text = "\n\n".join(filter(None, blocks))
    if not text:
        raise ValueError(f"{name} holds no text: are its pages pictures?")
    yield Record.of_document(text, name, _title(title, name), data)


def _block(block: Any) -> str:
    if hasattr(block, "rows"):
        rows = ([" ".join(cell.text.split()) for cell in row.cells] for row in block.rows)
        return "\n".join(" | ".join(row) for row in rows)
    style = block.style.name if block.style is not None else ""
    level = style.removeprefix("Heading ")
    heading = "#" * int(level) + " " if style != level and level.isdecimal() else ""
    return heading + block.text.strip() if block.text.strip() else ""


def _title(told: object, name: str) -> str:
    return str(told or "") or PurePosixPath(name).stem
