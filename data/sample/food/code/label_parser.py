"""Parse an ingredient list into a tree.

Handles nested brackets, percentages, E-numbers and allergens in capitals:

    "Sugar, chocolate (20%) (cocoa mass, whole MILK powder, emulsifier: E322)"
"""

import re
from dataclasses import dataclass, field

PERCENT = re.compile(r"^(\d+(?:\.\d+)?)\s*%$")
E_NUMBER = re.compile(r"\bE\d{3,4}[a-z]?\b")
CAPITALS = re.compile(r"\b[A-Z]{3,}\b")


@dataclass
class Ingredient:
    """A name with an optional share and the parts it is made of."""

    name: str
    percent: float | None = None
    parts: list["Ingredient"] = field(default_factory=list)


def split_top_level(text):
    """Split text at the commas that lie outside all brackets."""
    pieces, depth, start = [], 0, 0
    for position, char in enumerate(text):
        if char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
            if depth < 0:
                raise ValueError(f"unexpected bracket at character {position}")
        elif char == "," and depth == 0:
            pieces.append(text[start:position])
            start = position + 1
    if depth:
        raise ValueError("a bracket is never closed")
    pieces.append(text[start:])
    return [piece.strip(" .") for piece in pieces if piece.strip(" .")]


def brackets_of(text):
    """Separate a name from the contents of its top-level brackets."""
    name, groups, depth, start = "", [], 0, 0
    for position, char in enumerate(text):
        if char in "([":
            if depth == 0:
                start = position + 1
            depth += 1
        elif char in ")]":
            depth -= 1
            if depth == 0:
                groups.append(text[start:position])
        else:
            name += char if depth == 0 else ""
    return " ".join(name.split()), groups


def parse(text):
    """Return the list of ingredients, in the order in which they are declared."""
    result = []
    for piece in split_top_level(text):
        name, groups = brackets_of(piece)
        item = Ingredient(name)
        for group in groups:
            share = PERCENT.match(group.strip())
            if share:
                item.percent = float(share.group(1))
            else:
                item.parts.extend(parse(group))
        result.append(item)
    return result


def show(items, indent=0):
    """Print the tree with one ingredient on each line."""
    for item in items:
        share = "" if item.percent is None else f"  {item.percent:g}%"
        print("  " * indent + item.name + share)
        show(item.parts, indent + 1)


if __name__ == "__main__":
    LABEL = "Tomatoes (46%), pasta (21%) (durum WHEAT, EGG), cheese (9%) (MILK), oil, gum (E415)."
    show(parse(LABEL))
    print("Additives:", ", ".join(sorted(set(E_NUMBER.findall(LABEL)))))
    print("Allergens:", ", ".join(sorted(set(CAPITALS.findall(LABEL)))))
