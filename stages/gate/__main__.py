"""Fail unless every condition of `evaluate.gate` holds. The last stage: what it judges is kept.

In: the metrics of the tuned and of the base model. Out: nothing but the exit code and a table.
"""

import argparse
import json
import sys
from pathlib import Path

from finetune.errors import run
from finetune.params import load
from stages.gate.conditions import Outcome, judge


def main() -> None:
    paths, params = _parse(), load()
    tuned, base = (json.loads(p.read_text(encoding="utf-8")) for p in (paths.tuned, paths.base))
    outcomes = judge(params.evaluate.gate, tuned, base)
    print(table(outcomes))
    failed = sum(not each.holds for each in outcomes)
    if failed:
        sys.exit(
            f"error: the gate failed: {failed} of {len(outcomes)} conditions of evaluate.gate do "
            "not hold. Nothing is lost: `dvc metrics show` has the numbers, and `dvc exp save` "
            "keeps this run"
        )


def table(outcomes: list[Outcome]) -> str:
    """A line a condition: whether it holds, what was expected, what was found."""
    if not outcomes:
        return "evaluate.gate is empty: nothing is asked of the result"
    width = max(len(each.condition) for each in outcomes)
    lines = [f"{'':6}  {'expected':{width}}  found"]
    for each in outcomes:
        found = f"{each.found} ({each.reason})" if each.reason else each.found
        lines.append(f"{'passed' if each.holds else 'FAILED'}  {each.condition:{width}}  {found}")
    return "\n".join(line.rstrip() for line in lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.gate")
    parser.add_argument("tuned", type=Path, help="metrics/tuned.json")
    parser.add_argument("base", type=Path, help="metrics/baseline.json")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
