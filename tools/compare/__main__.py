"""Compare runs on the test rows that both have: is one better, by how much, on what?

A run is a commit, a branch, a tag, an experiment, or `workspace`. What DVC has cached is read;
nothing is trained and nothing generated. Two runs: every metric with its paired difference, one
verdict, and the questions that they answer most differently. More: a ranking against the first.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    options = _parse()
    # Imported here, so that --help and a mistyped option answer at once.
    from finetune.errors import run

    run(lambda: compare(options))


def compare(options: argparse.Namespace) -> None:
    """Read the runs, compare each with the first, and print or write what was found."""
    from tools.compare.html import write_html
    from tools.compare.pairing import compare_runs
    from tools.compare.reading import read_run
    from tools.compare.text import as_json, as_text

    runs = [read_run(name, options.model) for name in options.runs]
    found = compare_runs(
        runs,
        metric=options.metric,
        anyway=options.anyway,
        samples=options.samples,
        seed=options.seed,
    )
    if options.html:
        write_html(options.html, found, options.questions)
    print(as_json(found, options.questions) if options.json else as_text(found, options.questions))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.compare",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="REV", help="the first is compared with")
    parser.add_argument("--metric", help="decides; default: accuracy of labels, else the loss")
    parser.add_argument("--model", choices=("tuned", "baseline"), default="tuned")
    parser.add_argument("--anyway", action="store_true", help="though rows or prompt differ")
    parser.add_argument("--questions", type=int, default=5, help="side by side (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--html", type=Path, help="write a page too")
    parser.add_argument("--samples", type=int, default=10_000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    if len(options.runs) < 2:
        parser.error("name two runs or more, such as: HEAD workspace")
    if options.samples < 100 or options.questions < 0:
        parser.error("--samples is at least 100, --questions at least 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
