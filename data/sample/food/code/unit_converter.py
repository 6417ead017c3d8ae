"""Convert kitchen measures between volume and weight.

Volumes convert freely among themselves, and so do weights. Crossing from one
to the other needs a density, so the ingredient has to be named:

    python unit_converter.py 2 cup g flour
    python unit_converter.py 250 ml floz
"""

import sys

# Millilitres in one unit. The US cup is 236.588 ml, the metric cup 250 ml.
VOLUME_ML = {
    "ml": 1.0, "l": 1000.0,
    "tsp": 5.0, "tbsp": 15.0,
    "floz": 29.5735,
    "cup": 236.588,
    "metric_cup": 250.0,
    "pint_uk": 568.261,
}

WEIGHT_G = {"g": 1.0, "kg": 1000.0, "oz": 28.3495, "lb": 453.592}

# Grams per millilitre, for ingredients spooned and levelled, not packed.
DENSITY = {
    "water": 1.00, "milk": 1.03, "oil": 0.92, "honey": 1.42,
    "flour": 0.53, "sugar": 0.85, "icing_sugar": 0.51, "butter": 0.96,
    "rice": 0.80, "oats": 0.38, "cocoa": 0.43, "salt": 1.20,
}


class ConversionError(ValueError):
    """Raised when a unit or ingredient is unknown or a density is missing."""


def kind_of(unit):
    """Return 'volume' or 'weight' for a known unit."""
    if unit in VOLUME_ML:
        return "volume"
    if unit in WEIGHT_G:
        return "weight"
    raise ConversionError(f"unknown unit: {unit}")


def convert(amount, source, target, ingredient=None):
    """Convert amount from source to target, using a density if required."""
    source_kind, target_kind = kind_of(source), kind_of(target)
    factors = {**VOLUME_ML, **WEIGHT_G}
    base = amount * factors[source]
    if source_kind != target_kind:
        if ingredient is None:
            raise ConversionError("name an ingredient to go between volume and weight")
        try:
            density = DENSITY[ingredient]
        except KeyError:
            raise ConversionError(f"no density for {ingredient}") from None
        base = base * density if source_kind == "volume" else base / density
    return base / factors[target]


def sensible(value):
    """Round the way a cook would: finer for small amounts, coarser for large."""
    if value < 10:
        return round(value, 2)
    if value < 100:
        return round(value, 1)
    return round(value)


def main(argv):
    if len(argv) not in (3, 4):
        print(__doc__)
        return 2
    try:
        result = convert(float(argv[0]), *argv[1:])
    except ValueError as problem:
        print(f"Cannot convert: {problem}")
        return 1
    print(f"{argv[0]} {argv[1]} = {sensible(result)} {argv[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
