"""The page's HTML: its frame, and the few elements of which its parts are made.

All text passes through `escape`; `Html` marks what is HTML already.
"""

import html
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


class Html(str):
    """Text that is HTML; so is what it makes with another text."""

    def __add__(self, other: object) -> "Html":
        return Html(str.__add__(self, escape(other)))


def escape(text: object) -> Html:
    """Text as HTML; HTML as it is; nothing for None."""
    return text if isinstance(text, Html) else Html(html.escape("" if text is None else str(text)))


def element(tag: str, *inside: object, **attributes: object) -> Html:
    """`<tag a="b">inside</tag>`; `class_` is written class, `data_x` data-x; False is left out."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
        if value is not False
    )
    return Html(f"<{tag}{written}>{''.join(escape(each) for each in inside)}</{tag}>")


def card(title: str, *inside: object, half: bool = False, note: str = "") -> Html:
    """A part of the page under its title, with a line that says how to read it."""
    about = [element("p", note, class_="note")] if note else []
    kind = "card half" if half else "card"
    return element("section", element("h3", title), *about, *inside, class_=kind)


def table(head: Sequence[object], rows: Sequence[Sequence[object]], kinds: str = "") -> Html:
    """A table that scrolls within its card; `kinds` has a letter a column, n for numbers."""
    classes = [{"n": "number"}.get(kind, False) for kind in kinds.ljust(len(head), "t")]
    cells = zip(head, classes, strict=True)
    line = element("tr", *(element("th", text, class_=c, scope="col") for text, c in cells))
    body = [
        element("tr", *(element("td", v, class_=c) for v, c in zip(row, classes, strict=True)))
        for row in rows
    ]
    inside = element("table", element("thead", line), element("tbody", *body))
    return element("div", inside, class_="wide", tabindex="0")


def fold(summary: str, *inside: object) -> Html:
    """What is shown on demand, and in print."""
    return element("details", element("summary", summary), *inside)


def page(name: str, lead: Html, sections: Sequence[tuple[str, Sequence[Html]]]) -> str:
    """The whole document: style, script and drawings within it, no address outside."""
    shown = [(title, [part for part in parts if part]) for title, parts in sections]
    shown = [(title, parts) for title, parts in shown if parts]
    links = [element("a", title, href=f"#{_anchor(title)}") for title, _ in shown]
    body = [
        element("h2", title, id=_anchor(title)) + element("div", *parts, class_="section")
        for title, parts in shown
    ]
    style, script = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(name)}: report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>{element('p', name, class_='name')}{element('nav', *links)}</header>\n"
        f"<main>\n{lead}\n{chr(10).join(body)}\n</main>\n<script>\n{script}</script>\n"
        "</body>\n</html>\n"
    )


def number(value: float | None, digits: int = 3) -> str:
    """With thousands parted; an en dash for none; a real minus sign."""
    if value is None:
        return "–"
    text = f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"
    return text.replace("-", "\u2212")


def signed(value: float | None, digits: int = 3) -> str:
    """A change, with its sign."""
    if value is None:
        return "–"
    return f"{value:+,.{digits}f}".replace("-", "\u2212")


def share(value: float | None) -> str:
    """As a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
