"""Files that are one document each: PDF and DOCX. The row has `text`, `path` and `title`."""

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from stages.fetch.streams import Record, read_whole

MAX_BYTES = 64 << 20
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_ALTERNATIVES = "{http://schemas.openxmlformats.org/markup-compatibility/2006}AlternateContent"
_WRAPPERS = {_W + name for name in ("sdt", "sdtContent", "customXml", "smartTag", "ins", "moveTo")}
_TEXTS = {_W + "t", _M + "t"}
_SIGNS = {
    **{_W + name: "\t" for name in ("tab", "ptab")},
    **{_W + name: "\n" for name in ("br", "cr")},
    _W + "noBreakHyphen": "-",
}
_MATHS = {_M + "num": "", _M + "den": "/", _M + "sup": "^"}
_UNSEEN = {  # what was deleted or moved away, how it looks, and how a word is pronounced
    _W + name for name in ("del", "moveFrom", "pPr", "rPr", "sdtPr", "rt")
}


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
    """Paragraphs, headings (`## `) and tables (`a | b`), in their order, as Word shows them with
    all tracked changes accepted."""
    import docx

    data = read_whole(stream, name, MAX_BYTES, "split it")
    try:
        document = docx.Document(io.BytesIO(data))
        blocks = [_block(each, document) for each in _parts(document.element.body, "p", "tbl")]
        title = document.core_properties.title
    except Exception as error:  # python-docx raises what the archive and the XML parser meet
        raise ValueError(
            f"{name} is no whole .docx without a password ({error}): save it again"
        ) from None
    text = "\n\n".join(filter(None, blocks))
    if not text:
        raise ValueError(f"{name} holds no text: are its pages pictures?")
    yield Record.of_document(text, name, _title(title, name), data)


def _block(block: Any, document: Any) -> str:
    from docx.text.paragraph import Paragraph

    if block.tag == _W + "tbl":
        rows = ([_line(cell) for cell in _parts(row, "tc")] for row in _parts(block, "tr"))
        return "\n".join(" | ".join(row) for row in rows if any(row))
    style = Paragraph(block, document).style
    name = style.name if style is not None else ""
    level = name.removeprefix("Heading ")
    heading = "#" * int(level) + " " if name != level and level.isdecimal() else ""
    text = "".join(_words(block)).strip()
    return heading + text if text else ""


def _parts(element: Any, *names: str) -> Iterator[Any]:
    """The children of these names, also within content controls and the like. A cell that spans
    columns is one child, so that its text comes once."""
    for child in element:
        if child.tag in [_W + name for name in names]:
            yield child
        elif child.tag in _WRAPPERS and not _is_aid(child):
            yield from _parts(child, *names)


def _words(element: Any) -> Iterator[str]:
    """The text within an element at any depth: python-docx reads only runs directly in a paragraph,
    and so loses insertions, fields, formulas and text boxes."""
    for child in element:
        if child.tag in _TEXTS:
            yield child.text or ""
        elif child.tag in _SIGNS:
            yield _SIGNS[child.tag]
        elif child.tag in _MATHS:
            yield _operand(child, _MATHS[child.tag])
        elif child.tag == _ALTERNATIVES:  # the same text box, for new and for old programs
            yield next(filter(str.strip, ("".join(_words(each)) for each in child)), "")
        elif child.tag == _W + "p":  # of a text box or a cell
            yield from ("\n", *_words(child), "\n")
        elif child.tag not in _UNSEEN and not _is_aid(child):
            yield from _words(child)


def _is_aid(element: Any) -> bool:
    """Whether it is a content control that still shows its prompt, or the table of contents."""
    looks = element.find(_W + "sdtPr") if element.tag == _W + "sdt" else None
    if looks is None:
        return False
    galleries = (each.get(_W + "val") for each in looks.iter(_W + "docPartGallery"))
    return looks.find(_W + "showingPlcHdr") is not None or "Table of Contents" in galleries


def _operand(element: Any, sign: str) -> str:
    """A part of a formula behind its sign, in brackets where it has signs of its own."""
    text = "".join(_words(element))
    return sign + (text if text.isalnum() else f"({text})") if text else ""


def _line(element: Any) -> str:
    return " ".join("".join(_words(element)).split())


def _title(told: object, name: str) -> str:
    return str(told or "") or PurePosixPath(name).stem
