"""Show what the run took that metrics/train.json is of.

In: metrics/train.json, which names its run. Out: metrics/cost.json, from `models/cost`, where each
run leaves its own. DVC gives back the outs of an earlier run without starting `train`; this stage
has no out, so DVC runs it, and the costs beside the metrics are never those of another run.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from finetune.errors import run
from finetune.records import write_json

MEASURED = (
    "duration_s",
    "warmup_s",
    "tokens_per_s",
    "peak_memory_gb",
    "estimated_memory_gb",
    "sessions",
    "processes",
    "hardware",
)
UNKNOWN = "not known here: the run was made elsewhere, and its results came from DVC's cache"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.cost")
    parser.add_argument("metrics", type=Path, help="metrics/train.json")
    parser.add_argument("cost", type=Path, help="metrics/cost.json")
    paths = parser.parse_args()
    fingerprint = json.loads(paths.metrics.read_text(encoding="utf-8"))["fingerprint"]
    write_json(paths.cost, find_cost(fingerprint))


def keep_cost(cost: dict[str, Any]) -> None:
    """Leave the costs of a run where they are found by its fingerprint."""
    write_json(_path(cost["fingerprint"]), cost)


def find_cost(fingerprint: str) -> dict[str, Any]:
    """The costs of that run; where this machine does not know them, nulls and the reason."""
    path = _path(fingerprint)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    return dict.fromkeys(MEASURED) | {"fingerprint": fingerprint, "reason": UNKNOWN}


def _path(fingerprint: str) -> Path:
    """In the main repository under `dvc exp run --temp` and `--queue` too."""
    root = Path(os.environ.get("DVC_ROOT", "."))
    return root / "models" / "cost" / f"{fingerprint}.json"


if __name__ == "__main__":
    run(main)
