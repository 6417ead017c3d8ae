"""Look at a run before it costs anything: no GPU, no weights, a few seconds.

    python -m tools.plan                                 params.yaml
    python -m tools.plan law-mistral-7b --device rtx-4090-24 --price 0.4
    python -m tools.plan food-mistral-24b --device h200-141 --rows 270000 --row-tokens 1024

Rows and tokens, steps and passes, options that do nothing, memory by part, time and cost, disk,
and whether the hub gives access; first of all what looks like a mistake. Exit code 0 whatever is
warned of; 1 where the params file is wrong.
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    options = _parse()
    # Imported here, so that --help and a mistyped option answer at once.
    from finetune.errors import run

    run(lambda: show(options))


def show(options: argparse.Namespace) -> None:
    """Make the plan and print it."""
    from finetune.params import load
    from tools.plan.asked import Asked, find_params
    from tools.plan.devices import find_device

    root, path = Path(), find_params(options.params, Path())
    load(path)  # before torch is imported: what is wrong with it is said in a second
    asked = Asked(
        device=find_device(options.device) if options.device else None,
        price=options.price,
        rows=options.rows,
        row_tokens=options.row_tokens,
        offline=options.offline,
    )
    from tools.plan.plan import make_plan
    from tools.plan.text import as_text

    plan = make_plan(path, asked, root)
    print(json.dumps(plan.as_dict(), indent=2) if options.json else as_text(plan))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.plan",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "params", nargs="?", default="params.yaml", help="a params file, or a preset's name"
    )
    parser.add_argument("--device", metavar="NAME", help="h100-80, rtx-4090-24 ..., or GB: 24")
    parser.add_argument("--price", type=float, help="of a device for an hour")
    parser.add_argument("--rows", type=int, help="to train on, where they cannot be counted yet")
    parser.add_argument("--row-tokens", type=int, help="of a row, with --rows (default: the most)")
    parser.add_argument("--offline", action="store_true", help="ask the hub nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    for name in ("rows", "row_tokens", "price"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} is {value}: it must be above 0")
    if options.row_tokens and not options.rows:
        parser.error("--row-tokens is of --rows")
    return options


if __name__ == "__main__":
    main()
