"""From a captured page to the columns that a document's template can name.

They are `url`, `title` and `text`, and those of `preprocess.selectors`. What the page says by
schema.org comes first, then what the selectors find, then the main content; the first two only
where they are a fair share of it, unless a selector says what `text` is.
"""

from pathlib import Path
from typing import Any

import soupsieve
from bs4 import BeautifulSoup

from finetune.web import decode_html, is_html, read_warc_record
from stages.preprocess.content import element_text, main_text, main_title
from stages.preprocess.documents import CAPTURE, Rejected
from stages.preprocess.structured import find_thing, is_whole, thing_text, thing_title

MAX_PAGE_BYTES = 8_000_000
MAX_TAGS = 60_000  # a parsed tag takes about 1 kB
FAIR_SHARE = 0.25  # of the main text, that structured data or selectors must have to replace it
WHOLE_SHARE = 0.05  # if they are a whole recipe, as its page may tell a long story before
MAX_DEPTH = 120  # pages that people read stay below 60


def check_selectors(selectors: dict[str, dict[str, str]]) -> None:
    """Raise ValueError for a selector that is no CSS."""
    for source, fields in selectors.items():
        for field, selector in fields.items():
            try:
                soupsieve.compile(selector)
            except soupsieve.SelectorSyntaxError as error:
                key = f"preprocess.selectors.{source}.{field}"
                problem = str(error).splitlines()[0]
                raise ValueError(f"{key} is {selector!r}, which is no CSS: {problem}") from None


def extract_row(row: dict[str, Any], folder: Path, selectors: dict[str, str]) -> dict[str, Any]:
    """The columns of the page that a row stands for. Raises Rejected, or ValueError where the
    capture has no record at the row's place: then it is not the one that the rows belong to."""
    record = read_warc_record(folder / CAPTURE, row["warc_offset"], MAX_PAGE_BYTES)
    if len(record.body) > MAX_PAGE_BYTES:
        raise Rejected("page_too_large")
    if not is_html(record.content_type or str(row.get("content_type") or "text/html")):
        raise Rejected("page_is_no_html")
    return {**row, **extract(decode_html(record.content_type, record.body), selectors)}


def extract(page: str, selectors: dict[str, str]) -> dict[str, str]:
    """title, text and the selected fields of a page's HTML. Raises Rejected."""
    if page.count("<") > 2 * MAX_TAGS:
        raise Rejected("page_too_large")
    soup = BeautifulSoup(page, "lxml")
    if _depth(soup) > MAX_DEPTH:
        raise Rejected("page_too_deep")
    return _columns(soup, selectors)


def _depth(soup: BeautifulSoup) -> int:
    """How deep the deepest tag is."""
    depths = {id(soup): 0}
    for tag in soup.find_all(True):
        depths[id(tag)] = depths[id(tag.parent)] + 1
    return max(depths.values())


def _columns(soup: BeautifulSoup, selectors: dict[str, str]) -> dict[str, str]:
    title, thing = main_title(soup), find_thing(soup)
    selected = {
        field: "\n\n".join(filter(None, map(element_text, soup.select(selector))))
        for field, selector in selectors.items()
    }
    joined = "\n\n".join(text for field, text in selected.items() if text and field != "title")
    main = main_text(soup).removeprefix(f"# {title}\n\n")
    if thing and _is_fair(thing_text(thing), main, whole=is_whole(thing)):
        return {**selected, "title": thing_title(thing) or title, "text": thing_text(thing)}
    if selected.get("text") or _is_fair(joined, main):
        return {"title": title, "text": joined, **selected}
    return {"title": title, **selected, "text": main}


def _is_fair(text: str, main: str, *, whole: bool = False) -> bool:
    """Whether a text can stand for the page: a label in the margin of an article cannot."""
    return bool(text) and len(text) >= (WHOLE_SHARE if whole else FAIR_SHARE) * len(main)
