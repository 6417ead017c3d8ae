"""Compare the training losses of two runs step by step: does this change leave training as it was?

    python -m tools.curves main workspace
    python -m tools.curves tests/golden/law-sample.tsv workspace --steps 10

Each side is a commit, branch, tag, experiment, `workspace`, or a .tsv file with step and loss. Ends
with 1 where two losses of one step are further apart than --tolerance. Reads what DVC has cached.
"""

import argparse
import csv
import sys
from pathlib import Path

from finetune.errors import run

CURVE = "reports/train/plots/metrics/train/loss.tsv"
TOLERANCE = 1e-4  # nats per token: what another CPU's order of sums may change in a few steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.curves",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--steps", type=int, help="only so many of the first")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    arguments = parser.parse_args()
    first, second = (read_curve(name) for name in (arguments.first, arguments.second))
    found = differences(first, second, arguments.steps)
    step = max(found, key=found.get)
    print(
        f"{len(found)} steps that both have; most different is step {step}: "
        f"{first[step]:.6f} and {second[step]:.6f}, {found[step]:.6f} apart"
    )
    if found[step] > arguments.tolerance:
        sys.exit(f"error: more than {arguments.tolerance:g}; the mean is {mean(found):.6f}")


def read_curve(name: str) -> dict[int, float]:
    """Step -> loss. Raises ValueError where there is no such run or file, or no step in it."""
    if name.endswith(".tsv"):
        if not Path(name).is_file():
            raise ValueError(f"{name} is not there")
        text = Path(name).read_text(encoding="utf-8")
    else:
        from tools.compare.reading import read_file, resolve

        text = read_file(name, resolve(name), CURVE)
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    try:
        curve = {int(row["step"]): float(row["loss"]) for row in rows}
    except (KeyError, ValueError):
        raise ValueError(f"the curve of {name} has no columns step and loss of numbers") from None
    if not curve:
        raise ValueError(f"the curve of {name} has no step")
    return curve


def differences(
    first: dict[int, float], second: dict[int, float], steps: int | None = None
) -> dict[int, float]:
    """Step -> distance of the losses, over the first steps that both have."""
    both = sorted(first.keys() & second.keys())[:steps]
    if not both:
        raise ValueError("the two curves have no step in common: was train.logging_steps changed?")
    return {step: abs(first[step] - second[step]) for step in both}


def mean(found: dict[int, float]) -> float:
    return sum(found.values()) / len(found)


if __name__ == "__main__":
    run(main)
