"""Recipes and products that a page describes by schema.org, as JSON-LD or microdata."""

import html
import re
from collections.abc import Iterator
from typing import Any

from bs4 import BeautifulSoup

from finetune.web import read_json_ld
from stages.preprocess.formulas import raised, spell_out
from stages.preprocess.microdata import MAX_DEPTH, Thing, read_microdata

_WANTED = ("Recipe", "Product")
_REST = r"(?:[\s/][^<>]{0,300})?>"
_TAG = re.compile(
    rf"</?[A-Za-z][\w-]{{0,40}}(?::[A-Za-z]\w{{0,40}})?{_REST}|<[!?][A-Za-z[][^<>]{{0,300}}>"
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SUP = re.compile(rf"<sup{_REST}([^<>]{{1,40}})</sup>", re.IGNORECASE)
_FRACTION = re.compile(
    rf"<sup{_REST}\s?(\d{{1,4}})\s?</sup>\s?(/|⁄|∕|&frasl;|&#8260;)\s?"
    rf"<sub{_REST}\s?(\d{{1,4}})\s?</sub>",
    re.IGNORECASE,
)
_AMOUNT = r"(\d{1,6}(?:[.,]\d{1,6})?)"
_DURATION = re.compile(
    rf"P(?:{_AMOUNT}D)?(?:T(?:{_AMOUNT}H)?(?:{_AMOUNT}M)?(?:\d+(?:\.\d+)?S)?)?$", re.IGNORECASE
)


def find_thing(soup: BeautifulSoup) -> Thing | None:
    """The first recipe or product of a page, JSON-LD before microdata. Spells out the formulas of
    `soup` for good where it has microdata."""
    if soup.find(itemscope=True):
        spell_out(soup)
    for thing in (*_json_ld(soup), *read_microdata(soup)):
        if any(kind in _types(thing) for kind in _WANTED):
            return thing
    return None


def thing_title(thing: Thing) -> str:
    """Its name."""
    return _text(thing.get("name"))


def thing_text(thing: Thing) -> str:
    """A recipe or product as a person would write it down, without its name."""
    blocks = _recipe(thing) if "Recipe" in _types(thing) else _product(thing)
    return "\n\n".join(block for block in blocks if block)


def is_whole(thing: Thing) -> bool:
    """Whether it is a recipe that one can cook by: with ingredients and steps."""
    ingredients = thing.get("recipeIngredient") or thing.get("ingredients")
    return bool("Recipe" in _types(thing) and ingredients and thing.get("recipeInstructions"))


def _recipe(thing: Thing) -> Iterator[str]:
    yield _text(thing.get("description"))
    yield _lines(
        ("Yield", _text(thing.get("recipeYield") or thing.get("yield"))),
        ("Preparation", _duration(thing.get("prepTime"))),
        ("Cooking", _duration(thing.get("cookTime"))),
        ("Total time", _duration(thing.get("totalTime"))),
        ("Category", _text(thing.get("recipeCategory"))),
        ("Cuisine", _text(thing.get("recipeCuisine"))),
    )
    ingredients = thing.get("recipeIngredient") or thing.get("ingredients")
    yield _section("Ingredients", [f"- {each}" for each in _texts(ingredients)])
    steps = list(_steps(thing.get("recipeInstructions")))
    numbered = [each if each.startswith("### ") else f"{n}. {each}" for n, each in _numbered(steps)]
    yield _section("Method", numbered)
    yield _section("Nutrition", _properties(thing.get("nutrition")))


def _product(thing: Thing) -> Iterator[str]:
    yield _lines(
        ("Brand", _text(thing.get("brand") or thing.get("manufacturer"))),
        ("Category", _text(thing.get("category"))),
        ("Quantity", _text(thing.get("weight") or thing.get("size"))),
    )
    yield _text(thing.get("description"))
    for name, key in (("Ingredients", "ingredients"), ("Material", "material")):
        yield _section(name, _texts(thing.get(key)))
    yield _section("Composition", _properties(thing.get("additionalProperty")))
    yield _section("Nutrition", _properties(thing.get("nutrition")))


def _json_ld(soup: BeautifulSoup) -> Iterator[Thing]:
    scripts = soup.find_all("script", type=re.compile(r"^application/ld\+json", re.I))
    for value in read_json_ld(script.get_text() for script in scripts):
        yield from _walk(value)


def _walk(value: Any, depth: int = 0) -> Iterator[Thing]:
    """Every item of JSON-LD, also within @graph, lists and other items."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list):
        for each in value:
            yield from _walk(each, depth + 1)
    elif isinstance(value, dict):
        yield value
        for each in value.values():
            if isinstance(each, dict | list):
                yield from _walk(each, depth + 1)


def _types(thing: Thing) -> list[str]:
    """schema.org's names of what a thing is, without their address."""
    kinds = thing.get("@type") or []
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return [re.split(r"[/#:]", kind)[-1] for kind in kinds if isinstance(kind, str)]


def _steps(value: Any, depth: int = 0) -> Iterator[str]:
    """Instructions in any of the forms in use: text, lists, HowToStep, HowToSection."""
    if isinstance(value, list) and depth < MAX_DEPTH:
        for each in value:
            yield from _steps(each, depth + 1)
    elif isinstance(value, dict) and "HowToSection" in _types(value):
        yield f"### {_text(value.get('name'))}"
        yield from _steps(value.get("itemListElement") or [], depth + 1)
    elif isinstance(value, dict):
        yield _text(value.get("text") or value.get("name"))
    elif isinstance(value, str):
        yield from (line.strip() for line in _plain(value).splitlines())


def _numbered(steps: list[str]) -> Iterator[tuple[int, str]]:
    number = 0
    for step in steps:
        if step.strip("# "):
            number += not step.startswith("### ")
            yield number, step


def _properties(value: Any) -> list[str]:
    """`name: value` of PropertyValue items, and of the fields of one like NutritionInformation."""
    found = []
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            found += _texts(each)
        elif "value" in each or "PropertyValue" in _types(each):
            unit = _text(each.get("unitText") or each.get("unitCode"))
            name, amount = _text(each.get("name")), _text(each.get("value"))
            found.append(f"- {name}: {amount} {unit}".rstrip())
        else:
            pairs = ((key, _text(part)) for key, part in each.items() if not key.startswith("@"))
            found += [f"- {_spaced(key)}: {text}" for key, text in pairs if text]
    return found


def _spaced(key: str) -> str:
    """carbohydrateContent -> carbohydrate."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key.removesuffix("Content")).lower()


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    lines = (line.strip() for each in values for line in _text(each).splitlines())
    return [line for line in lines if line]


def _text(value: Any) -> str:
    """Text of a value: of an item its name or text, of a list its texts."""
    if isinstance(value, str):
        return _plain(value)
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        found = next((value[key] for key in ("name", "text", "value") if value.get(key)), "")
        return _text(found) if not isinstance(found, dict) else ""
    return ", ".join(filter(None, (_text(each) for each in value if not isinstance(each, list))))


def _plain(text: str) -> str:
    """Text that may hold HTML, as it often does in JSON-LD."""
    inside, end, behind = text.rpartition("-->")  # so that each search for an end finds one
    text = _COMMENT.sub("", inside + end) + behind
    text = re.sub(r"(?i)<(?:br|/p|/li)\s*/?>", "\n", text)
    text = _FRACTION.sub(_fraction, text)
    text = _SUP.sub(lambda m: html.escape(raised(_before(m), html.unescape(m[1]))), text)
    return re.sub(r"[ \t\xa0]+", " ", html.unescape(_TAG.sub("", text))).strip()


def _fraction(match: re.Match[str]) -> str:
    """1/2, with a space behind a whole number."""
    return " " * _before(match)[-1:].isalnum() + match[1] + match[2] + match[3]


def _before(match: re.Match[str]) -> str:
    """The end of the text before a match."""
    text = match.string[max(0, match.start() - 40) : match.start()]
    return html.unescape(_TAG.sub("", text))[-2:]


def _duration(value: Any) -> str:
    """An ISO 8601 duration in hours and minutes: PT1H30M and PT1.5H -> 1 h 30 min."""
    match = _DURATION.fullmatch(_text(value).strip())
    if not match:
        return ""
    parts, rest = [], 0.0
    for told, unit, of_next in zip(match.groups(), ("d", "h", "min"), (24, 60, 0), strict=True):
        amount = float((told or "0").replace(",", ".")) + rest
        whole = int(amount) if of_next else round(amount)
        rest = (amount - whole) * of_next
        parts += [f"{whole} {unit}"] if whole else []
    return " ".join(parts)


def _lines(*pairs: tuple[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in pairs if value)


def _section(name: str, lines: list[str]) -> str:
    return f"## {name}\n\n" + "\n".join(lines) if lines else ""
