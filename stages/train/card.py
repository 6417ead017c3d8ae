"""The adapter's model card: a function of the run, without date or path."""

from typing import Any

from huggingface_hub import ModelCardData
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from finetune.params import Params

# The hub's own names of licences that are in no list of SPDX.
HUB_LICENSES = {
    "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m",
    "cc",
    "creativeml-openrail-m",
    "gemma",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "openrail",
    "other",
    "unknown",
}


def write_card(params: Params, manifest: dict[str, Any], run: dict[str, Any]) -> str:
    """The README.md of an adapter.

    `manifest` is models/base/manifest.json; `run` holds metrics/train.json as `metrics` and, where
    the run went on from a checkpoint of another one, what was different as `continued`.
    """
    model, lora, train, metrics = manifest["model"], params.lora, params.train, run["metrics"]
    targets = lora.target_modules
    targets = targets if isinstance(targets, str) else ", ".join(targets)
    if lora.modules_to_save:
        targets += f"; trained whole: {', '.join(lora.modules_to_save)}"
    per_step = train.per_device_train_batch_size * train.gradient_accumulation_steps
    return f"""---
{front_matter(model)}
---

# {params.name}

A LoRA adapter for {model["name"]} ({model["source"]}, {model["revision"] or "no revision"}),
trained on the base model in 4 bits ({params.quantization.type}).

| | |
|---|---|
| LoRA | rank {lora.r}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, on {targets} |
| steps | {metrics["global_step"]}, of which the best by evaluation loss is {metrics["best_step"]} |
| examples in a step | {per_step} for each process |
| learning rate | {train.learning_rate:g}, {train.lr_scheduler_type} |
| optimizer | {train.optim} |
| passes over the data | {metrics["epochs"]} ({metrics["tokens"]:,} tokens) |
| evaluation loss | {metrics["eval_loss_first"]} before, {metrics["eval_loss"]} after |
{_continued(run["continued"])}
`settings.json` holds the base model's files, the quantisation and the prompt that it was trained
with; `checksums.json` the sha256 of every file here.
"""


def front_matter(model: dict[str, Any]) -> str:
    """The hub's metadata as YAML; `model` is the section of the manifest."""
    return ModelCardData(
        base_model=model["name"] if model["source"] == "hub" else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["qlora"],
        **_license(model["license"]),
    ).to_yaml()


def _license(name: str) -> dict[str, str]:
    """What is no licence that the hub knows by its id is `other`, under its own name."""
    known = name.lower()
    if known not in HUB_LICENSES:
        try:
            known = canonicalize_license_expression(name).lower()
        except InvalidLicenseExpression:
            known = "other"
        if " " in known or known.startswith("licenseref-"):
            known = "other"
    return {"license": known} if known != "other" else {"license": "other", "license_name": name}


def _continued(continued: dict[str, Any] | None) -> str:
    """A row of the table: the run that was continued, and what was accepted to be different."""
    if continued is None:
        return ""
    changes = continued["changes"].items()
    words = [f"{key} {each['from']} -> {each['to']}" for key, each in changes if "code." not in key]
    if any(key.startswith("code.") for key in continued["changes"]):
        words.append("code")
    start = f"{continued['checkpoint']} of run {continued['run']}"
    return f"| continued from | {start}; different: {', '.join(words)} |\n"
