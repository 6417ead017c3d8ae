"""Estimate bacterial reduction from a record of core temperatures.

The D-value is the time in which nine tenths of a population die at a given
temperature. The z-value is the rise that makes D ten times shorter. With both
it is possible to turn any heating curve into an equivalent number of minutes
at the reference temperature, by adding up the lethality of each short step.

The default follows a common planning target for cooked chilled food: 2 minutes
at 70 °C, intended to cut Listeria by a million times. For learning only; do
not use it to approve a process.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Organism:
    """Heat resistance: D-value in minutes at ref °C, and z in degrees."""

    name: str
    d_value: float
    ref: float
    z: float


LISTERIA = Organism("Listeria monocytogenes", d_value=1 / 3, ref=70.0, z=7.5)


def lethal_rate(temperature, organism):
    """Minutes at the reference that one minute at this temperature is worth."""
    return 10 ** ((temperature - organism.ref) / organism.z)


def equivalent_minutes(readings, organism):
    """Integrate the lethal rate over (minute, °C) readings by trapezia."""
    total = 0.0
    for (t0, temp0), (t1, temp1) in zip(readings, readings[1:]):
        if t1 <= t0:
            raise ValueError(f"time must increase, but {t1} follows {t0}")
        # Rates are exponential, so cut every interval into short slices.
        slices = max(1, round((t1 - t0) * 10))
        width = (t1 - t0) / slices
        for k in range(slices):
            middle = temp0 + (temp1 - temp0) * (k + 0.5) / slices
            total += lethal_rate(middle, organism) * width
    return total


def log_reduction(readings, organism):
    """Powers of ten by which the organism is reduced."""
    return equivalent_minutes(readings, organism) / organism.d_value


def hold_time(temperature, organism, target_log=6.0):
    """Minutes needed at a constant temperature to reach the target."""
    return target_log * organism.d_value / lethal_rate(temperature, organism)


# Core of a chicken pie: minutes after going into the oven, degrees Celsius.
PIE = [(0, 5), (10, 20), (20, 41), (25, 54), (30, 63), (33, 68), (36, 70), (39, 67)]

if __name__ == "__main__":
    minutes = equivalent_minutes(PIE, LISTERIA)
    logs = log_reduction(PIE, LISTERIA)
    print(f"Equivalent to {minutes:.1f} min at {LISTERIA.ref:.0f} °C")
    print(f"{logs:.1f} log reductions of {LISTERIA.name}:", "enough" if logs >= 6 else "too little")
    print("\nHolding times for six reductions")
    for degrees in (60, 65, 70, 75, 80):
        needed = hold_time(degrees, LISTERIA)
        text = f"{needed:.1f} min" if needed >= 1 else f"{needed * 60:.0f} s"
        print(f"  {degrees} °C  {text}")
