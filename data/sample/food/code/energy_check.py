"""Check the energy printed on a label against its macronutrients.

Uses the conversion factors of Regulation (EU) No 1169/2011, Annex XIV. The
label is read from one line of text such as:

    energy 1874 kJ / 448 kcal; fat 19 g, of which saturates 8.1 g; ...

Rounding on labels means that an exact match is rare, so differences within a
tolerance are accepted.
"""

import re
import sys

# (kJ, kcal) for each gram
FACTORS = {
    "fat": (37, 9),
    "carbohydrate": (17, 4),
    "protein": (17, 4),
    "fibre": (8, 2),
    "alcohol": (29, 7),
    "polyols": (10, 2.4),
}

ENERGY = re.compile(r"energy\s+(\d+)\s*kJ\s*/\s*(\d+)\s*kcal", re.IGNORECASE)


def grams(label, nutrient):
    """Find the amount of a nutrient in grams, or 0 when it is not declared."""
    match = re.search(rf"\b{nutrient}\s+<?\s*(\d+(?:[.,]\d+)?)\s*g\b", label, re.IGNORECASE)
    return float(match.group(1).replace(",", ".")) if match else 0.0


def expected_energy(label):
    """Return (kJ, kcal) as calculated from the declared nutrients."""
    amounts = {nutrient: grams(label, nutrient) for nutrient in FACTORS}
    # Polyols are declared inside carbohydrate; count them once, at their own rate.
    amounts["carbohydrate"] = max(0.0, amounts["carbohydrate"] - amounts["polyols"])
    kj = sum(amounts[n] * FACTORS[n][0] for n in FACTORS)
    kcal = sum(amounts[n] * FACTORS[n][1] for n in FACTORS)
    return kj, kcal


def problems(label, tolerance=0.03):
    """List everything about the label that does not add up."""
    found = []
    match = ENERGY.search(label)
    if not match:
        return ["no energy value of the form '123 kJ / 45 kcal'"]
    for unit, printed, expected in zip(
        ("kJ", "kcal"), map(float, match.groups()), expected_energy(label)
    ):
        if abs(printed - expected) > max(2, tolerance * expected):
            found.append(f"{unit}: printed {printed:.0f}, calculated {expected:.0f}")
    for part, whole in (("saturates", "fat"), ("sugars", "carbohydrate")):
        if grams(label, part) > grams(label, whole):
            found.append(f"{part} exceed {whole}")
    if sum(grams(label, n) for n in ("fat", "carbohydrate", "fibre", "protein")) > 101:
        found.append("nutrients weigh more than the food itself")
    return found


SAMPLES = [
    "energy 1453 kJ / 345 kcal; fat 9 g, of which saturates 1.9 g; carbohydrate 51 g, "
    "of which sugars 15 g; fibre 9 g; protein 10.6 g; salt 0.04 g",
    "energy 1890 kJ / 520 kcal; fat 19 g, of which saturates 21 g; carbohydrate 60 g, "
    "of which sugars 27 g; fibre 3 g; protein 7 g; salt 0.5 g",
]

if __name__ == "__main__":
    for text in SAMPLES if sys.stdin.isatty() else map(str.strip, sys.stdin):
        issues = problems(text) if text else []
        print("OK" if not issues else "; ".join(issues))
