"""Plan a week of dinners from a short list of dishes.

The planner searches with backtracking. A plan is acceptable when no dish is
served twice, the same main ingredient never appears on consecutive days, busy
evenings get quick dishes, fish turns up at least once, meat at most three
times and the cost stays within the budget.
"""

import random
from typing import NamedTuple


class Dish(NamedTuple):
    """One dinner: what it is, what it is built on, how long, how much."""

    name: str
    main: str
    minutes: int
    cost: float


DISHES = [
    Dish("Baked cod with potatoes", "fish", 40, 11.0),
    Dish("Mackerel on toast with cucumber", "fish", 15, 6.5),
    Dish("Chicken and leek pie", "meat", 80, 9.5),
    Dish("Pork dumplings in broth", "meat", 35, 7.0),
    Dish("Beef and barley stew", "meat", 150, 12.0),
    Dish("Turkey stir-fry", "meat", 20, 8.0),
    Dish("Chickpea and spinach curry", "pulses", 30, 4.5),
    Dish("Black bean tacos", "pulses", 25, 5.0),
    Dish("Lentil bolognese", "pulses", 45, 4.0),
    Dish("Mushroom risotto", "vegetables", 40, 6.0),
    Dish("Ratatouille with couscous", "vegetables", 50, 6.5),
    Dish("Tomato soup and cheese toasties", "vegetables", 25, 4.5),
    Dish("Shakshuka", "eggs", 30, 4.0),
    Dish("Spanish omelette and salad", "eggs", 35, 4.5),
]

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
TIME_LIMIT = {"Monday": 35, "Tuesday": 35, "Thursday": 25}
MAX_MEAT = 3


def fits(plan, dish, budget):
    """Say whether dish may follow the dinners already in plan."""
    day = DAYS[len(plan)]
    if dish in plan or dish.minutes > TIME_LIMIT.get(day, 180):
        return False
    if plan and plan[-1].main == dish.main:
        return False
    if dish.main == "meat" and sum(d.main == "meat" for d in plan) >= MAX_MEAT:
        return False
    return sum(d.cost for d in plan) + dish.cost <= budget


def search(plan, dishes, budget):
    """Extend plan to a full week, or return None if that is impossible."""
    if len(plan) == len(DAYS):
        return plan if any(d.main == "fish" for d in plan) else None
    for dish in dishes:
        if fits(plan, dish, budget):
            complete = search(plan + [dish], dishes, budget)
            if complete:
                return complete
    return None


def plan_week(budget, seed=None):
    """Return seven dishes, different for each seed, or None."""
    shuffled = DISHES[:]
    random.Random(seed).shuffle(shuffled)
    return search([], shuffled, budget)


if __name__ == "__main__":
    week = plan_week(budget=45, seed=11)
    if week is None:
        print("No week fits. Raise the budget or add some quicker dishes.")
    else:
        for day, dish in zip(DAYS, week):
            print(f"{day:10} {dish.name:34} {dish.minutes:3} min  {dish.cost:5.2f}")
        print(f"{'Total':54}{sum(d.cost for d in week):6.2f}")
