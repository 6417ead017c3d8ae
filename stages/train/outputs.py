"""The stage's outs: the best adapter with all that its use needs, the checkpoints, the metrics."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerState

from finetune.checkpoints import copy_sealed, list_steps, seal
from finetune.model.load import load_tokenizer, resolve
from finetune.params import Params
from finetune.records import write_json
from stages.train.adapter import CONFIG, WEIGHTS, check_trained
from stages.train.card import write_card
from stages.train.steps import Plan
from stages.train.store import Store

LAST_SHARE = 0.1  # of the run, over which the training loss is averaged


def write_checkpoints(store: Store, state: TrainerState, folder: Path) -> None:
    """Copy the checkpoints that every run of this kind keeps, and say which is the best."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    steps = list_steps(store.folder)
    for step in sorted(store.kept(list(steps), state.best_global_step)):
        copy_sealed(steps[step], folder / f"step-{step}")
    write_json(folder / "best.json", {"best": state.best_global_step, "last": state.global_step})


def write_adapter_folder(
    checkpoint: Path,
    params: Params,
    base: Path,
    prepared: Path,
    run: dict[str, Any],
    folder: Path,
) -> None:
    """Write the adapter of `checkpoint`, its tokenizer, settings, card and sums; all or nothing.

    `run` holds metrics/train.json as `metrics`, `continued` of the fingerprint, or None, and as
    `memory` how the run was held in memory.

    Raises ValueError where a lora_B was never trained.
    """
    check_trained(checkpoint)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(checkpoint / name, partial / name)
    load_tokenizer(base).save_pretrained(partial)
    manifest = json.loads((base / "manifest.json").read_text(encoding="utf-8"))
    asked = json.loads((prepared / "train/prompt.json").read_text(encoding="utf-8"))
    settings = describe_settings(params, manifest, asked) | {"memory": run["memory"]}
    write_json(partial / "settings.json", settings)
    (partial / "README.md").write_text(write_card(params, manifest, run), encoding="utf-8")
    seal(partial, folder, step=run["metrics"]["best_step"])


def describe_settings(
    params: Params, manifest: dict[str, Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """What an answer depends on beside the adapter: `base` is models/base/manifest.json, what is
    `asked` and how is the training rows' prompt.json."""
    return {
        "name": params.name,
        "base": manifest,
        "quantization": asdict(params.quantization),
        "compute_dtype": resolve(params.compute).dtype,
        **asked,
    }


def summarize(state: TrainerState, plan: Plan, trainable: int) -> dict[str, Any]:
    """metrics/train.json: functions of the run alone; losses are means per token, in nats."""
    logged = [e for e in state.log_history if "loss" in e]
    evaluated = [e["eval_loss"] for e in state.log_history if "eval_loss" in e]
    last_tenth = [e for e in logged if e["step"] > state.global_step * (1 - LAST_SHARE)]
    last = [e["loss"] for e in last_tenth or logged[-1:]]
    seen = plan.seen(state.global_step)
    return {
        "train_loss": round(sum(last) / len(last), 4) if last else None,
        "eval_loss": round(_best_entry(state)["eval_loss"], 4),
        "eval_loss_first": round(evaluated[0], 4),
        "eval_loss_last": round(evaluated[-1], 4),
        "best_step": state.best_global_step,
        "global_step": state.global_step,
        "epochs": round(plan.epochs(state.global_step), 2),
        **seen,
        "trainable": trainable,
    }


def sample_loss(state: TrainerState) -> tuple[float, int]:
    """The loss on the first validation micro-batch at the best step, and that batch's budget."""
    entry = _best_entry(state)
    return entry["eval_sample_loss"], entry["eval_sample_tokens"]


def _best_entry(state: TrainerState) -> dict[str, Any]:
    """What was logged at the evaluation of the best step."""
    return next(
        entry
        for entry in state.log_history
        if "eval_loss" in entry and entry["step"] == state.best_global_step
    )
