"""Add up the nutrition of a recipe and show it per portion and per 100 g.

Each food stores its values per 100 g, as labels do. A recipe is a list of
(food, grams) pairs. Water lost in cooking is handled through the finished
weight: the nutrients stay behind, so 100 g of the dish holds more of them.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Nutrients:
    """Energy in kcal, everything else in grams."""

    kcal: float = 0.0
    fat: float = 0.0
    saturates: float = 0.0
    carbohydrate: float = 0.0
    sugars: float = 0.0
    fibre: float = 0.0
    protein: float = 0.0
    salt: float = 0.0

    def __add__(self, other):
        return Nutrients(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def scaled(self, factor):
        """Return a copy with every value multiplied by factor."""
        return Nutrients(*(getattr(self, f.name) * factor for f in fields(self)))


FOODS = {
    "red lentils, dry": Nutrients(350, 1.5, 0.2, 56, 2.0, 11, 24, 0.02),
    "onion": Nutrients(38, 0.1, 0.0, 8.0, 6.0, 1.8, 1.0, 0.01),
    "carrot": Nutrients(40, 0.3, 0.1, 7.7, 7.2, 3.1, 0.7, 0.08),
    "canned tomatoes": Nutrients(22, 0.2, 0.0, 3.8, 3.5, 1.0, 1.1, 0.05),
    "coconut milk": Nutrients(170, 17, 15, 2.8, 2.0, 0.3, 1.4, 0.03),
    "rapeseed oil": Nutrients(900, 100, 7.0, 0, 0, 0, 0, 0),
    "salt": Nutrients(salt=100),
    "water": Nutrients(),
}


def total(recipe):
    """Sum the nutrients of (food, grams) pairs, naming anything unknown."""
    unknown = sorted({food for food, _ in recipe} - FOODS.keys())
    if unknown:
        raise KeyError("no data for: " + ", ".join(unknown))
    return sum((FOODS[food].scaled(grams / 100) for food, grams in recipe), Nutrients())


def report(recipe, portions, cooked_weight=None):
    """Return a small text table with one row for each nutrient."""
    whole = total(recipe)
    weight = cooked_weight or sum(grams for _, grams in recipe)
    per_portion, per_100 = whole.scaled(1 / portions), whole.scaled(100 / weight)
    lines = [f"{'':14}{'portion':>10}{'100 g':>10}"]
    for field in fields(Nutrients):
        a, b = getattr(per_portion, field.name), getattr(per_100, field.name)
        digits = 0 if field.name == "kcal" else 2 if field.name == "salt" else 1
        lines.append(f"{field.name:14}{a:>10.{digits}f}{b:>10.{digits}f}")
    return "\n".join(lines)


if __name__ == "__main__":
    SOUP = [
        ("red lentils, dry", 240),
        ("onion", 150),
        ("carrot", 200),
        ("canned tomatoes", 400),
        ("coconut milk", 200),
        ("rapeseed oil", 20),
        ("salt", 8),
        ("water", 900),
    ]
    print("Red lentil soup, four portions, simmered down to 1.9 kg\n")
    print(report(SOUP, portions=4, cooked_weight=1900))
