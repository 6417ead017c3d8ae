"""Work with dough formulas in baker's percentages.

Flour is always 100 and every other ingredient is a percentage of the flour's
weight. A sourdough starter hides both flour and water, so the true hydration
is computed after taking the starter apart.
"""

from dataclasses import dataclass, field


@dataclass
class Formula:
    """A bread formula; percentages are relative to flour outside the starter."""

    name: str
    water: float
    salt: float = 2.0
    yeast: float = 0.0
    starter: float = 0.0
    starter_hydration: float = 100.0
    extras: dict[str, float] = field(default_factory=dict)

    def total_percent(self):
        """Sum of all percentages, flour included."""
        return 100 + self.water + self.salt + self.yeast + self.starter + sum(self.extras.values())

    def weights(self, dough_weight):
        """Ingredient weights in grams that give dough_weight in total."""
        flour = dough_weight / self.total_percent() * 100
        shares = {
            "flour": 100,
            "water": self.water,
            "starter": self.starter,
            "salt": self.salt,
            "yeast": self.yeast,
            **self.extras,
        }
        return {name: flour * share / 100 for name, share in shares.items() if share}

    def true_hydration(self):
        """Water as a percentage of all flour, counting what is in the starter."""
        starter_flour = self.starter / (1 + self.starter_hydration / 100)
        starter_water = self.starter - starter_flour
        return 100 * (self.water + starter_water) / (100 + starter_flour)


def water_temperature(target, flour, room, friction=4.0, starter=None):
    """Temperature of the water needed for a dough of the target temperature.

    The temperatures of water, flour, room and starter are averaged with equal
    weight, which is crude and works well in practice.
    Friction is the warmth added by mixing, small by hand, larger in a machine.
    """
    known = [flour, room, friction] + ([starter] if starter is not None else [])
    return target * len(known) - sum(known)


FORMULAS = [
    Formula("Tin loaf", water=65, yeast=1.2, extras={"butter": 4}),
    Formula("Country sourdough", water=72, starter=20),
    Formula("Focaccia", water=80, yeast=0.5, salt=2.4, extras={"olive oil": 6}),
]

if __name__ == "__main__":
    for formula in FORMULAS:
        print(f"{formula.name} (hydration {formula.true_hydration():.0f}%)")
        for ingredient, weight in formula.weights(900).items():
            digits = 0 if weight >= 30 else 1
            print(f"  {ingredient:10}{weight:8.{digits}f} g")
    wanted = water_temperature(target=25, flour=20, room=21)
    print(f"Use water at {wanted:.0f} °C for a yeast dough of 25 °C.")
