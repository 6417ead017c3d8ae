"""Powers, fractions and formulas of a page as text: 10<sup>6</sup> is not 106."""

import re
from itertools import islice

from bs4 import Tag
from bs4.element import NavigableString, PreformattedString

HEADINGS = {f"h{n}": "#" * n for n in range(1, 7)}
BLOCKS = {
    "address", "article", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "header", "hgroup", "hr", "html", "li", "main", "ol", "p",
    "pre", "section", "summary", "table", "tbody", "td", "th", "tr", "ul", *HEADINGS,
}  # fmt: skip
_LETTER = r"[^\W\d_]"
_BASE = re.compile(r"(?:[^\W_]|\))$")
_SYMBOL = re.compile(rf"(?:[\d)]|(?<!{_LETTER}){_LETTER})$")  # what a letter can be the power of
_OPERAND = re.compile(r"[-+−–]?\w+(?:[.,]\w+)?[-+−]?")
_MIXED = re.compile(r"\d{1,4}\s?[/⁄∕]\s?\d{1,4}")
_RAISED_ONLY = re.compile(  # ordinals, abbreviations and marks; no powers
    r"\W*|\[.*\]|st|[nr]d|th|er|i?[eè]re?|re|e|[eè]?mes?|es|nde?|de?|[oa]s?|m?lles?|ter?|tm|sm|m[cd]",
    re.IGNORECASE | re.DOTALL,
)
_NOTE = re.compile(r"foot|note|\bref|\bfn|cit[ae]", re.IGNORECASE)
_PARTS = 20  # more than a superscript ever holds
_MATHML_SIGNS = {"msup": "^", "mfrac": "/"}
_DISPLAYSTYLE = re.compile(r"\{\\displaystyle\s(.*)\}", re.DOTALL)  # how MediaWiki wraps each


def spell_out(root: Tag) -> None:
    """Writes powers, fractions and formulas as text, for good."""
    tags, texts = [], {}  # by id, as tags of the same content are equal
    for tag in reversed(root.find_all(["sup", "sub", "math", "script"])):  # the inner ones first
        text = _spelled(tag)
        if text is not None:
            tag.string = text
            tags.append(tag)  # kept, so that no other one gets its id
            texts[id(tag)] = text
    for parent in {id(tag.parent): tag.parent for tag in tags if tag.parent}.values():
        _melt(parent, texts)


def raised(before: str, text: str) -> str:
    """A superscript behind `before`: ^6, but st of 1st as it is, and 1/2 of 1 1/2 apart."""
    sign = text.strip()
    if _MIXED.fullmatch(sign) and before[-1:].isdecimal():
        return f" {sign}"
    if not _BASE.search(before) or _RAISED_ONLY.fullmatch(sign):
        return text
    if sign.isalpha() and not _SYMBOL.search(before):
        return text
    return "^" + _operand(sign)


def _melt(parent: Tag, texts: dict[int, str]) -> None:
    """Puts texts in the place of their tags, one string with what is around it, as _line would
    part them. At once, because Beautiful Soup's own methods look for each child's place."""
    children, run = list(parent.children), ""
    parent.clear()
    for child in children:
        if id(child) in texts or type(child) is NavigableString:
            run += texts.get(id(child), child)
            continue
        if run:
            parent.append(NavigableString(run))
        parent.append(child)
        run = ""
    if run:
        parent.append(NavigableString(run))


def _spelled(tag: Tag) -> str | None:
    """The text that a tag stands for; None where it stays."""
    if tag.name == "script":
        return _tex(tag) if str(tag.get("type") or "").lower().startswith("math/tex") else None
    if tag.name == "math":
        return None if is_hidden(tag) else _formula(tag)
    if len(list(islice(tag.descendants, _PARTS + 1))) > _PARTS:
        return None
    return tag.get_text() if tag.name == "sub" else _power(tag)


def _tex(script: Tag) -> str:
    """The formula of a script for MathJax, instead of what MathJax made of it."""
    while isinstance(shown := script.previous_sibling, Tag) and any(
        name.startswith("MathJax") for name in shown.get_attribute_list("class", [])
    ):
        shown.decompose()
    return script.get_text().strip()


def _formula(math: Tag) -> str:
    """A formula as its author wrote it, in TeX as a rule, else its signs."""
    parent = math.parent
    if parent and parent.name == "span" and "display" in str(parent.get("style") or ""):
        del parent["style"]  # hidden behind a picture of the formula
    note = math.find("annotation", encoding="application/x-tex")
    text = str(math.get("alttext") or "") or (note.get_text() if note else "")
    text = text.strip() or _mathml(math).strip()
    wrapped = _DISPLAYSTYLE.fullmatch(text)
    return wrapped[1].strip() if wrapped else text


def _mathml(element: Tag) -> str:
    """The signs of MathML on one line."""
    parts = [
        _mathml(child) if isinstance(child, Tag) else re.sub(r"\s+", " ", child)
        for child in element.children
        if child.name not in ("annotation", "annotation-xml")
        and not isinstance(child, PreformattedString)  # a comment
    ]
    parts = [part for part in parts if part.strip()]
    sign = _MATHML_SIGNS.get(element.name)
    return sign.join(map(_operand, parts)) if sign else "".join(parts)


def _operand(text: str) -> str:
    return text if _OPERAND.fullmatch(text) else f"({text})"


def _power(sup: Tag) -> str | None:
    """A superscript as text; None for the number of a footnote."""
    text, before = sup.get_text(), _before(sup)
    alone = sup.previous_sibling is None and sup.next_sibling is None
    names = " ".join([*sup.get_attribute_list("class", []), str(sup.get("id") or "")])
    if sup.find("a") or (alone and sup.parent and sup.parent.name == "a") or _NOTE.search(names):
        return None
    if text.strip().startswith("["):
        return None
    if text.strip().isdecimal() and _is_over(sup):
        return (" " if before[-1:].isalnum() else "") + text.strip()
    return raised(before, text)


def _is_over(sup: Tag) -> bool:
    """Whether it is the upper part of a fraction."""
    slash = sup.next_sibling
    below = slash.next_sibling if slash else None
    return bool(
        isinstance(slash, NavigableString)
        and slash.strip() in ("/", "⁄", "∕")
        and isinstance(below, Tag)
        and below.name == "sub"
        and below.get_text().strip().isdecimal()
    )


def _before(tag: Tag) -> str:
    """The end of the text before a tag, within its block."""
    for node in islice(tag.previous_elements, _PARTS):
        if isinstance(node, Tag) and (node.name == "br" or node.name in BLOCKS):
            return ""
        if type(node) is NavigableString and node:
            return node[-2:] if _block_of(node) is _block_of(tag) else ""
    return ""


def _block_of(node: Tag | NavigableString) -> Tag | None:
    return next((parent for parent in node.parents if parent.name in BLOCKS), None)


def is_hidden(tag: Tag) -> bool:
    return tag.has_attr("hidden") or tag.get("aria-hidden") == "true"
