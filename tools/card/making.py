"""The card as a whole: its parts, and what the hub reads above them."""

import logging
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from stages.evaluate.report import CHARTED, charted
from stages.train.card import front_matter
from tools.card.origins import data, heading, how_it_was_made, sources, usage
from tools.card.results import limits, results
from tools.record import ADAPTER, METRICS, Record

log = logging.getLogger(__name__)

# Kind of export -> the library that reads it, by the hub's name, and how it relates to its base.
LIBRARIES = {
    "adapter": ("peft", "adapter"),
    "merged": ("transformers", "finetune"),
    "gguf": ("gguf", "quantized"),
    "gguf-adapter": ("gguf", "adapter"),
}
# Metric -> its name among the hub's metrics, where that is another.
HUB_METRICS = {"rouge1": "rouge", "rougeL": "rouge", "macro_f1": "f1", "token_f1": "f1"}


def write_card(
    folder: Path,
    kind: str = "adapter",
    *,
    adapter: Path = Path(ADAPTER),
    scored: dict[str, Any] | None = None,
    root: Path = Path(),
) -> None:
    """Write README.md of an exported `folder`.

    `adapter` is what was exported, `scored` what metrics/export-KIND.json says of it. Raises
    ValueError, in a line, where a file of the run is missing or `adapter` is of another run.
    """
    record = Record(root)
    record.check(*METRICS)
    record.check_same(ADAPTER, adapter)
    make_card(record, kind, scored).save(folder / "README.md")


def write_card_if_possible(folder: Path, kind: str, **of: Any) -> None:
    """`write_card`; elsewhere than in the run's repository the card that is there stays, told."""
    try:
        write_card(folder, kind, **of)
    except ValueError as error:
        log.warning(f"README.md has no metrics: {error}")


def make_card(record: Record, kind: str = "adapter", scored: dict | None = None) -> ModelCard:
    """The card of the run in `record`. Raises ValueError where one of its files is missing."""
    record.check(*METRICS)
    record.cited.clear()
    parts = [
        heading(record, kind),
        results(record, scored),
        data(record),
        how_it_was_made(record),
        usage(record, kind),
        limits(record),
        sources(record),
    ]
    text = "\n\n".join(part for part in parts if part)
    return ModelCard(f"---\n{_metadata(record, kind).to_yaml()}\n---\n\n{text}\n")


def _metadata(record: Record, kind: str) -> ModelCardData:
    """What the hub reads: base and licence as the small card has them, data sets, results."""
    model = record.json("models/base/manifest.json")["model"]
    small = ModelCard(f"---\n{front_matter(model)}\n---\n").data
    library, relation = LIBRARIES[kind]
    small.library_name = library
    small.tags = ["qlora", *(["gguf"] if library == "gguf" else [])]
    if small.base_model:
        small["base_model_relation"] = relation
    hub = [each.parameters["name"] for each in record.sources() if each.kind == "hub"]
    small.datasets = hub or None
    small.model_name = record.param("train", "name")
    small.eval_results = _eval_results(record)
    return small


def _eval_results(record: Record) -> list[EvalResult]:
    """The tuned model's metrics on the test rows, for the hub's model-index."""
    tuned, used = record.json("metrics/tuned.json"), list(record.sources())
    only = used[0] if len(used) == 1 else None
    name = record.param("train", "name")
    of = {
        "task_type": "text-generation",
        "task_name": "Text Generation",
        "dataset_type": only.parameters["name"] if only and only.kind == "hub" else name,
        "dataset_name": f"held-out rows of {', '.join(each.name for each in used)}",
        "dataset_revision": only.parameters.get("revision") if only else None,
        "dataset_split": "test",
    }
    return [
        EvalResult(
            **of,
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=CHARTED.get(metric, metric),
            metric_value=tuned[metric],
        )
        for metric in charted(tuned["interval"])
    ]
