"""The main content of a page as text: headings, paragraphs, lists and tables, no boilerplate.

trafilatura finds it; what stands in its way is taken out before, and what it finds is written as
everything else here is.
"""

import logging
import re
from collections.abc import Iterator
from copy import deepcopy

import trafilatura
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString
from lxml import etree, html
from trafilatura.settings import DEFAULT_CONFIG

from stages.preprocess.formulas import BLOCKS, HEADINGS, is_hidden, spell_out

_NEVER = [  # no text that people read
    "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "embed",
    "button", "select", "input", "textarea", "audio", "video", "map",
]  # fmt: skip
_AROUND = ["form", "label", "nav", "aside", "footer", "dialog", "menu"]  # rarely the content
_INLINE = [
    "time", "abbr", "acronym", "data", "meter", "output", "small", "big", "cite", "mark", "dfn",
    "kbd", "samp", "var", "ins", "bdi", "bdo", "ruby", "rb", "q", "u", "tt", "font", "nobr", "wbr",
]  # fmt: skip
_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alert"}
_NAMES = re.compile(
    r"(?:^|[-_ ])(?:ad|ads|advert\w*|breadcrumbs?|comments?|consent|cookies?|copyright|footer|gdpr|"
    r"masthead|menu|modal|mw-editsection|nav|navbar|navigation|newsletter|pager|pagination|popup|"
    r"promo|related|share|sharing|sidebar|skip|social|sponsored|subscribe|toc|toolbar)(?:$|[-_ ])",
    re.IGNORECASE,
)
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # that it found nothing is no news
_HOLDS_CONTENT = 0.4  # of a page's text: what has more is no boilerplate, whatever it is called
_EDIT = re.compile(
    r"(?im)[ \t]*\[\s*(?:edit|bearbeiten|modifier|editar|modifica|bewerken|redigera|"
    r"править|編集|编辑)(?:\s*[|·]\s*[^\]\n]{1,40})?\s*\][ \t]*$"
)
_BOXES = ["div", "section", "header", "ul", "ol", "dl", "table", "figure", "p", "span"]
_IN_LAYOUT = ["table", "p", "ul", "ol", "div", "pre", *HEADINGS]  # a table that holds them is none
_TEI = {
    "row": "tr",
    "cell": "td",
    "lb": "br",
    "quote": "blockquote",
    "hi": "b",
    "ref": "a",
    "del": "s",
}
_NUMBER = re.compile(r"⁅#(-?\d{1,6})⁆")  # of a list's item, while trafilatura has the page
_CONFIG = deepcopy(DEFAULT_CONFIG)
_CONFIG["DEFAULT"]["MIN_EXTRACTED_SIZE"] = "1"  # below it, it takes all text of the page in a lump
LINKS = 0.8  # of a list's text: above that it leads elsewhere and says nothing itself


def main_title(soup: BeautifulSoup) -> str:
    """The page's heading, else its title."""
    for found in (soup.find("h1"), soup.title):
        if found:
            spell_out(found)
            if text := _line(found):
                return text
    return ""


def main_text(soup: BeautifulSoup) -> str:
    """The text of the page's main part. Takes the boilerplate out of `soup` for good."""
    root = soup.body or soup
    _strip(root)
    found = _find(str(soup))
    # On pages of a sentence or two it finds nothing, or loses what little there is.
    part = found if found and len(_line(found)) * 2 > len(_line(_named_part(root))) else None
    blocks = [block for block in _render(part or _named_part(root)) if block]
    return _EDIT.sub("", _NUMBER.sub("", "\n\n".join(_without_empty_sections(blocks))))


def element_text(element: Tag) -> str:
    """The text of one element, in blocks; of a heading without its marks."""
    spell_out(element)
    if element.name in HEADINGS:
        return _line(element)
    return "\n\n".join(block for block in _render(element) if block)


def _strip(root: Tag) -> None:
    spell_out(root)
    _keep_numbers(root)
    for tag in root.find_all(_NEVER):
        tag.decompose()
    limit = _HOLDS_CONTENT * len(_line(root))
    for tag in root.find_all([*_AROUND, *_BOXES]):
        if not tag.decomposed and _is_around(tag) and len(_line(tag)) <= max(limit, 80):
            tag.decompose()
    for tag in root.find_all(is_hidden):
        if not tag.decomposed:
            tag.decompose()
    for tag in root.find_all(_INLINE):  # trafilatura drops some of them with their text
        tag.unwrap()
    for pre in root.find_all("pre"):  # as trafilatura keeps lines: without colours, in <code>
        pre.string = pre.get_text()
        pre.string.wrap(Tag(name="code"))


def _keep_numbers(root: Tag) -> None:
    """Writes the numbers at which lists start or go on into their items: trafilatura drops the
    attributes that say them."""
    for tag in root.find_all("ol", start=True):
        first = tag.find("li", recursive=False)
        if first and not first.has_attr("value"):
            first["value"] = tag["start"]
    for item in root.find_all("li", value=re.compile(r"^\s*-?\d{1,6}\s*$")):
        text = next((each for each in item.strings if each.strip()), None)
        if text and item.parent.name == "ol":
            text.replace_with(f"⁅#{int(item['value'])}⁆{text.lstrip()}")


def _is_around(tag: Tag) -> bool:
    names = " ".join([*tag.get_attribute_list("class", []), str(tag.get("id") or "")])
    outer = tag.name == "header" and not tag.find_parent(["main", "article"])
    return bool(tag.name in _AROUND or outer or tag.get("role") in _ROLES or _NAMES.search(names))


def _named_part(root: Tag) -> Tag:
    """The element that says it is the main one, else all."""
    articles = root.find_all("article", limit=2)
    for part in [root.find("main"), root.find(attrs={"role": "main"}), *articles[:1]]:
        if part and _line(part) and (part.name != "article" or len(articles) == 1):
            return part
    return root


def _find(page: str) -> Tag | None:
    """The main content by trafilatura, as the HTML that `_render` reads; None where it finds none.

    Without a network, a date or comments, and always the same: no deduplication, whose memory is
    of other pages.
    """
    try:
        document = trafilatura.bare_extraction(
            page, include_comments=False, include_formatting=True, deduplicate=False, config=_CONFIG
        )
    except (ValueError, etree.LxmlError, RecursionError):
        return None
    if document is None or document.body is None:
        return None
    for element in document.body.iter(etree.Element):
        element.tag = _html_tag(element)
    found = BeautifulSoup(html.tostring(document.body, encoding="unicode"), "lxml")
    return found.body or found


def _html_tag(element: etree._Element) -> str:
    """The HTML element of one of trafilatura's TEI."""
    kind = element.get("rend") or ""
    if element.tag == "head":
        return kind if kind in HEADINGS else "h2"
    if element.tag == "list":
        return kind if kind in ("ol", "dl") else "ul"
    if element.tag == "item":
        return "div" if kind.startswith(("dt", "dd")) else "li"
    if element.tag == "code":
        return "pre" if "\n" in "".join(element.itertext()).strip() else "code"
    return _TEI.get(element.tag, element.tag)


def _without_empty_sections(blocks: list[str]) -> list[str]:
    """The blocks without headings that another of their rank or above follows at once."""
    kept: list[str] = []
    for block in [*blocks, "# "]:
        while kept and (rank := _rank(block)) and rank <= _rank(kept[-1]):
            kept.pop()
        kept.append(block)
    return kept[:-1]


def _rank(block: str) -> int:
    """1 to 6 of a heading, else 0."""
    mark, space, _ = block.partition(" ")
    return len(mark) if space and set(mark) == {"#"} and len(mark) <= 6 else 0


def _render(element: Tag) -> Iterator[str]:
    """The blocks of an element, top to bottom."""
    if element.name in HEADINGS:
        text = _line(element)
        yield f"{HEADINGS[element.name]} {text}" if text else ""
    elif element.name == "pre":
        yield element.get_text().strip("\n")
    elif element.name in ("ul", "ol"):
        yield _list(element)
    elif element.name == "table" and not element.find(_IN_LAYOUT):
        yield _table(element)
    else:
        yield from _flow(element)


def _flow(element: Tag) -> Iterator[str]:
    """Runs of text and inline elements as one block each, block elements as their own."""
    run: list[str] = []
    for child in element.children:
        if isinstance(child, Tag) and _holds_blocks(child):
            yield _joined(run)
            run = []
            yield from _render(child)
        elif isinstance(child, Tag):
            run.append("\n" if child.name == "br" else _inline(child))
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            run.append(re.sub(r"\s+", " ", child))
    yield _joined(run)


def _holds_blocks(tag: Tag) -> bool:
    return tag.name in BLOCKS or tag.find(BLOCKS) is not None


def _list(element: Tag, indent: str = "") -> str:
    """A list as lines; "" for one of little but links."""
    items = [item for item in element.find_all("li", recursive=False)]
    text = "".join(_line(item) for item in items)
    linked = sum(len(_line(link)) for link in element.find_all("a"))
    if linked > LINKS * len(text):
        return ""
    lines, number = [], _whole(element.get("start"), 1)
    for item in items:
        blocks = [block.replace("\n", f"\n{indent}  ") for block in _flow(item) if block]
        told = _NUMBER.match(blocks[0]) if blocks else None
        number = _whole(told[1] if told else item.get("value"), number)
        mark = f"{number}. " if element.name == "ol" else "- "
        if blocks:
            blocks[0] = blocks[0][told.end() if told else 0 :]
            lines.append(f"{indent}{mark}" + f"\n{indent}  ".join(blocks))
        number += 1
    return "\n".join(lines)


def _whole(told: object, default: int) -> int:
    """A number that a page tells."""
    text = str(told or "").strip()
    return int(text) if re.fullmatch(r"-?\d{1,6}", text) else default


def _table(element: Tag) -> str:
    """A table as lines of cells."""
    rows = ([_line(cell) for cell in row.find_all(["th", "td"])] for row in element.find_all("tr"))
    return "\n".join(" | ".join(row) for row in rows if any(row))


def _inline(tag: Tag) -> str:
    for line_break in tag.find_all("br"):
        line_break.replace_with("\n")
    return re.sub(r"[ \t\r\f\v\xa0]+", " ", tag.get_text())


def _joined(run: list[str]) -> str:
    return "\n".join(" ".join(line.split()) for line in "".join(run).split("\n")).strip()


def _line(element: Tag) -> str:
    """All text of an element on one line."""
    return " ".join(element.get_text(" ").split())
