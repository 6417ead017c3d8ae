"""What the last run of this repository took, by metrics/cost.json: a measurement like another."""

import json
from pathlib import Path
from typing import Any

from finetune.model.memory import skeleton
from finetune.params import Model
from tools.plan.base import find_base
from tools.plan.lock import Lock
from tools.plan.memory import size_of
from tools.plan.speed import Measurement, Work

COST, TRAIN = "metrics/cost.json", "metrics/train.json"


def read_own(root: Path) -> tuple[Measurement, dict[str, Any]] | None:
    """The last run's speed, and all of metrics/cost.json; None where it is not known of what run.

    dvc.lock has the run's model and how it was trained; its model's sizes come from config.json.
    """
    lock, costs, done = Lock(root), _read(root / COST), _read(root / TRAIN)
    trained, model = lock.params("train"), lock.params("fetch_model").get("model")
    if not (costs and costs.get("tokens_per_s") and trained and model):
        return None
    if costs["fingerprint"] != done.get("fingerprint"):
        return None
    base = find_base(Model(**model), root, ask=False)
    if base.config is None:
        return None
    with base.config_folder() as folder:
        layers, head = size_of(skeleton(folder))
    train = trained["train"]
    work = Work(
        layer_weights=layers,
        head_weights=head,
        supervised_share=done["supervised_tokens"] / max(1, done["tokens"]),
        step_tokens=done["tokens"] / max(1, done["global_step"]) / costs["processes"],
        compiled=train["compile"],
        recomputed=train["gradient_checkpointing"],
        dequantized=trained["quantization"]["dequantize"],
        float8=trained["compute"]["matmul"] == "float8",
    )
    speed = costs["tokens_per_s"] / costs["processes"]
    found = Measurement(COST, costs["hardware"], work, speed, costs.get("warmup_s"))
    return found, costs


def is_same_run(root: Path, values: dict[str, Any]) -> bool:
    """Whether the last run was of this very params file, as far as training goes."""
    lock = Lock(root)
    stages = ("fetch_model", "preprocess", "train")
    return all(lock.differences(stage, values) == [] for stage in stages)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
