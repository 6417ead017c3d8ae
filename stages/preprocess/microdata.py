"""Items that a page describes by microdata (HTML standard, chapter 5)."""

from collections.abc import Iterator
from typing import Any

from bs4 import BeautifulSoup, Tag

Thing = dict[str, Any]
MAX_DEPTH = 12  # of nested items that are followed
_LINK_ATTRIBUTES = {"a": "href", "area": "href", "link": "href", "img": "src", "source": "src"}
_VALUE_ATTRIBUTES = {"meta": "content", "data": "value", "meter": "value", "time": "datetime"}


def read_microdata(soup: BeautifulSoup) -> Iterator[Thing]:
    """Every item of a page, as JSON-LD would hold it; each property is a list."""
    for item in soup.find_all(itemscope=True):
        yield _item(item)


def _item(item: Tag, depth: int = 0) -> Thing:
    """The properties of a microdata item (HTML standard, section 5.2)."""
    thing: Thing = {"@type": str(item.get("itemtype") or "").split()}
    stack = [child for child in item.children if isinstance(child, Tag)][::-1]
    while stack:
        tag = stack.pop()
        nested = tag.has_attr("itemscope")
        if tag.has_attr("itemprop") and depth < MAX_DEPTH:
            value = _item(tag, depth + 1) if nested else _value(tag)
            for name in str(tag["itemprop"]).split():
                thing.setdefault(name, []).append(value)
        if not nested:
            stack += [child for child in tag.children if isinstance(child, Tag)][::-1]
    return thing


def _value(tag: Tag) -> str:
    attribute = _VALUE_ATTRIBUTES.get(tag.name) or _LINK_ATTRIBUTES.get(tag.name)
    if attribute and tag.get(attribute):
        return str(tag[attribute])
    items = tag.find_all("li")
    return "\n".join(li.get_text(" ", strip=True) for li in items) or tag.get_text(" ", strip=True)
