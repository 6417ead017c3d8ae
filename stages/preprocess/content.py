"""The main content of a page as text: headings, paragraphs, lists and tables, no boilerplate."""

import re
from collections.abc import Iterator

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString

_AROUND = [  # not what the page is about, whatever it says
    "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "embed",
    "form", "button", "select", "input", "textarea", "label", "nav", "aside", "footer", "dialog",
    "audio", "video", "map", "menu",
]  # fmt: skip
_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alert"}
_NAMES = re.compile(
    r"(?:^|[-_ ])(?:ad|ads|advert\w*|banner|breadcrumbs?|comments?|consent|cookies?|copyright|"
    r"footer|gdpr|header|masthead|menu|modal|nav|navbar|navigation|newsletter|pager|pagination|"
    r"popup|promo|related|share|sharing|sidebar|skip|social|sponsored|subscribe|tags|toc|toolbar|"
    r"widget)(?:$|[-_ ])",
    re.IGNORECASE,
)
_HEADINGS = {f"h{n}": "#" * n for n in range(1, 7)}
_BLOCKS = {
    "address", "article", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "header", "hgroup", "hr", "html", "li", "main", "ol", "p",
    "pre", "section", "summary", "table", "tbody", "td", "th", "tr", "ul", *_HEADINGS,
}  # fmt: skip
_BOXES = ["div", "section", "header", "ul", "ol", "dl", "table", "figure", "p", "span"]
_IN_LAYOUT = ["table", "p", "ul", "ol", "div", "pre", *_HEADINGS]  # a table that holds them is none
_PARENTS_OF_TEXT = ("p", "li", "pre", "td", "blockquote", "dd")
LINKS = 0.8  # of a list's text: above that it leads elsewhere and says nothing itself


def main_title(soup: BeautifulSoup) -> str:
    """The page's heading, else its title."""
    for found in (soup.find("h1"), soup.title):
        if found and (text := _line(found)):
            return text
    return ""


def main_text(soup: BeautifulSoup) -> str:
    """The text of the page's main part. Takes the boilerplate out of `soup` for good."""
    root = soup.body or soup
    _strip(root)
    blocks = [block for block in _render(_main_part(root)) if block]
    return "\n\n".join(_without_empty_sections(blocks))


def element_text(element: Tag) -> str:
    """The text of one element, in blocks."""
    return "\n\n".join(block for block in _render(element) if block)


def _strip(root: Tag) -> None:
    for tag in root.find_all(_AROUND):
        tag.decompose()
    for tag in root.find_all(_BOXES):
        if tag.decomposed:
            continue
        hidden = tag.has_attr("hidden") or tag.get("aria-hidden") == "true"
        names = " ".join([*tag.get_attribute_list("class"), str(tag.get("id") or "")])
        outer = tag.name == "header" and not tag.find_parent(["main", "article"])
        if hidden or outer or tag.get("role") in _ROLES or (names and _NAMES.search(names)):
            tag.decompose()


def _main_part(root: Tag) -> Tag:
    """The element that says it is the main one, else the one with most text right inside."""
    named = [root.find("main"), root.find(attrs={"role": "main"}), *root.find_all("article")[:2]]
    articles = [each for each in named[2:] if each]
    for part in [*named[:2], articles[0] if len(articles) == 1 else None]:
        if part and len(part.get_text(strip=True)) > 0:
            return part
    scores: dict[int, tuple[int, Tag]] = {}
    for tag in root.find_all(_PARENTS_OF_TEXT):
        for parent, share in zip(tag.parents, (2, 1), strict=False):
            score, _ = scores.get(id(parent), (0, parent))
            scores[id(parent)] = (score + share * len(_line(tag)), parent)
    best = max(scores.values(), key=lambda each: each[0], default=(0, root))[1]
    # Where paragraphs are spread over many boxes, the best box would lose the others.
    return best if len(_line(best)) * 2 > len(_line(root)) else root


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
    if element.name in _HEADINGS:
        text = _line(element)
        yield f"{_HEADINGS[element.name]} {text}" if text else ""
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
    return tag.name in _BLOCKS or tag.find(_BLOCKS) is not None


def _list(element: Tag, indent: str = "") -> str:
    """A list as lines; "" for one of little but links."""
    items = [item for item in element.find_all("li", recursive=False)]
    text = "".join(_line(item) for item in items)
    linked = sum(len(_line(link)) for link in element.find_all("a"))
    if linked > LINKS * len(text):
        return ""
    lines = []
    for number, item in enumerate(items, 1):
        mark = f"{number}. " if element.name == "ol" else "- "
        blocks = [block.replace("\n", f"\n{indent}  ") for block in _flow(item) if block]
        if blocks:
            lines.append(f"{indent}{mark}" + f"\n{indent}  ".join(blocks))
    return "\n".join(lines)


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
