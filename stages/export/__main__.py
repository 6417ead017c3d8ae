"""Write the trained model in the form that other tools load, and score that form.

    python -m stages.export KIND FOLDER --adapter models/adapter --test data/prepared/test
        --metrics metrics/export-KIND.json

A stage for each of export.kinds; `python -m tools.export` is the same for a person, with a choice.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from finetune.checkpoints import find_damage, seal_of
from finetune.errors import run
from finetune.params import Params, load
from finetune.records import write_json
from stages.export.writing import KINDS, Form, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.export")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    arguments = parser.parse_args()
    params = load()
    form = Form(arguments.kind, arguments.folder, arguments.adapter)
    export(form, params, arguments.test, arguments.metrics, params.evaluate.max_rows)


def export(
    form: Form, params: Params, test: Path, metrics: Path, rows: int | None
) -> dict[str, Any] | None:
    """Write the form and, but for 0 `rows`, score it and write `metrics`.

    Raises ValueError for a damaged adapter, and above export.max_loss_gap, with form and metrics
    written.
    """
    if damage := find_damage(form.adapter):
        raise ValueError(f"{damage}: run `dvc repro`, or `dvc pull {form.adapter}`")
    write(form, params.name)
    logging.info(f"written: {form.folder}")
    if rows == 0:
        return None
    from stages.export.scoring import check_gap, score

    found = score(form, params, test, rows) | {"adapter_sha256": seal_of(form.adapter)}
    write_json(metrics, found)
    logging.info(json.dumps(found, sort_keys=True))
    check_gap(form, found, params)
    return found


if __name__ == "__main__":
    run(main)
