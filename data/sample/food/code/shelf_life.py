"""Estimate when an opened or chilled food should be eaten.

The table gives days at 4 °C. Warmer storage shortens the time: as a rule of
thumb the rate of spoilage doubles with every extra 5 degrees. The result is
never later than the printed use-by date. This is an aid to planning and does
not replace the instructions on the pack.
"""

import argparse
from datetime import date, timedelta

REFERENCE_TEMP = 4.0
DOUBLING_STEP = 5.0

DAYS_AT_REFERENCE = {
    "cooked rice": 1,
    "fresh fish": 1,
    "minced meat": 1,
    "raw poultry": 2,
    "cooked meat": 2,
    "leftovers": 2,
    "hummus": 2,
    "cut melon": 3,
    "fruit juice": 3,
    "milk": 3,
    "soft cheese": 4,
    "yogurt": 5,
    "hard cheese": 21,
    "jam": 42,
}


def keeping_days(food, temperature):
    """Whole days the food should keep at the given fridge temperature."""
    if food not in DAYS_AT_REFERENCE:
        raise KeyError(f"{food!r} is not in the table")
    if not -1 <= temperature <= 12:
        raise ValueError("expected a refrigerator temperature between -1 and 12 °C")
    # Colder than the reference earns no bonus: the table is already the limit.
    excess = max(0.0, temperature - REFERENCE_TEMP)
    return int(DAYS_AT_REFERENCE[food] / 2 ** (excess / DOUBLING_STEP))


def eat_before(food, opened, temperature=REFERENCE_TEMP, use_by=None):
    """Last day on which to eat the food, respecting any use-by date."""
    last = opened + timedelta(days=keeping_days(food, temperature))
    return min(last, use_by) if use_by else last


def advice(last_day, today):
    """Describe how urgent it is in a few words."""
    left = (last_day - today).days
    if left < 0:
        return "past its time: throw it away"
    if left == 0:
        return "eat today or freeze"
    if left == 1:
        return "eat by tomorrow"
    return f"{left} days left"


def main():
    parser = argparse.ArgumentParser(description="When should this be eaten?")
    parser.add_argument("food", choices=sorted(DAYS_AT_REFERENCE))
    parser.add_argument("--opened", type=date.fromisoformat, default=date.today())
    parser.add_argument("--use-by", type=date.fromisoformat)
    parser.add_argument("--temp", type=float, default=REFERENCE_TEMP, help="fridge, in °C")
    args = parser.parse_args()
    try:
        last = eat_before(args.food, args.opened, args.temp, args.use_by)
    except ValueError as problem:
        parser.error(str(problem))
    print(f"{args.food}: eat by {last:%d %B %Y} ({advice(last, date.today())})")
    if args.temp > 5:
        print("Your fridge is warmer than 5 °C. Turning it down would help everything in it.")


if __name__ == "__main__":
    main()
