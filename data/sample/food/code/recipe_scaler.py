"""Scale a recipe written in plain text.

Every line begins with an amount, which may be whole, decimal, a fraction, a
mixed number or a range: "1 1/2 tsp salt", "½ lemon", "2-3 cloves garlic".
Lines without a leading amount ("salt to taste") are passed on untouched.
"""

import re
from fractions import Fraction

GLYPHS = {"½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅛": " 1/8"}
METRIC = {"g", "kg", "ml", "l"}
NUMBER = r"\d+\s+\d+/\d+|\d+/\d+|\d+\.\d+|\d+"
LINE = re.compile(rf"^\s*({NUMBER})(?:\s*[-–]\s*({NUMBER}))?\s*(.*)$")


def parse_number(text):
    """Turn '1 1/2', '3/4', '0.5' or '2' into a Fraction."""
    return sum((Fraction(part) for part in text.split()), Fraction(0))


def kitchen_fraction(value):
    """Write a quantity with the nearest eighth or third a cook can measure."""
    candidates = [Fraction(n, d) for d in (8, 3) for n in range(d + 1)]
    whole = value.numerator // value.denominator
    best = min(candidates, key=lambda c: abs(c - (value - whole)))
    if whole == 0 and best == 0:
        best = Fraction(1, 8)
    if best == 1:
        whole, best = whole + 1, Fraction(0)
    if best == 0:
        return str(whole)
    return f"{whole} {best}" if whole else str(best)


def metric_amount(value):
    """Write a metric quantity as a tidy decimal."""
    number = float(value)
    if number >= 100:
        return str(5 * round(number / 5))
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}".rstrip("0").rstrip(".")


def scale_line(line, factor):
    """Scale the amount at the start of one ingredient line."""
    for glyph, plain in GLYPHS.items():
        line = line.replace(glyph, plain)
    match = LINE.match(line)
    if not match:
        return line.strip()
    low, high, rest = match.groups()
    first_word = rest.split(maxsplit=1)[0] if rest else ""
    show = metric_amount if first_word in METRIC else kitchen_fraction
    amounts = [show(parse_number(part) * factor) for part in (low, high) if part]
    if len(amounts) == 2 and amounts[0] == amounts[1]:
        amounts.pop()
    return f"{'-'.join(amounts)} {rest}".strip()


def scale_recipe(text, serves, wanted):
    """Return the recipe with each line adjusted from serves to wanted."""
    factor = Fraction(wanted, serves)
    return "\n".join(scale_line(line, factor) for line in text.strip().splitlines())


if __name__ == "__main__":
    PANCAKES = """
    225 g plain flour
    1 1/2 tsp baking powder
    2 eggs
    300 ml milk
    ½ lemon, zest only
    2-3 tbsp caster sugar
    butter for the pan
    """
    for people in (2, 6):
        print(f"For {people} people")
        print(scale_recipe(PANCAKES, serves=4, wanted=people), end="\n\n")
