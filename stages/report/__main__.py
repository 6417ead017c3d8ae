"""One page of the whole run, for whoever must decide: reports/report.html.

In: metrics, predictions, reports, the prepared training split, the base model's manifest, and
params.yaml. Out: one file that needs nothing else, the same bytes for the same inputs. What differs
from run to run (hardware, duration, cost) is on the page only with `--cost`, which the stage does
not give.
"""

import argparse
from pathlib import Path

from finetune.errors import run
from stages.report.contents import Contents, read_contents
from stages.report.elements import page
from stages.report.examples import mask_audit
from stages.report.results import behaviour, charts, gate, metrics, parts, verdict
from stages.report.samples import samples
from stages.report.sources import cost, left_out, licences, parameters, repeat, versions


def main() -> None:
    paths = _parse()
    write_page(paths.out, read_contents(Path(), paths.cost))


def write_page(path: Path, run: Contents) -> None:
    """Write the page. Atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(draw(run), encoding="utf-8", newline="\n")
    partial.rename(path)


def draw(run: Contents) -> str:
    """The page's HTML: what decides first, where it comes from last."""
    return page(
        run.name,
        verdict(run),
        [
            ("Result", [metrics(run), gate(run), *charts(run, "Result"), parts(run)]),
            ("Answers", [samples(run), behaviour(run)]),
            ("Training", charts(run, "Training")),
            ("Data", [*charts(run, "Data"), left_out(run), mask_audit(run), licences(run)]),
            ("Repeat it", [repeat(run), versions(run), parameters(run), cost(run)]),
        ],
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.report")
    parser.add_argument("out", type=Path, help="reports/report.html")
    parser.add_argument("--cost", type=Path, help="metrics/cost.json, for a copy of your own")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
