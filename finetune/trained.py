"""The trained model as it was trained, by the settings.json in the adapter's folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from finetune.model.load import load_adapter, load_base
from finetune.model.memory import fit_evaluation
from finetune.model.weights import obtain_exactly
from finetune.params import Compute, Quantization


def load_trained(
    adapter: Path,
    device: str,
    batch_tokens: int,
    *,
    base_only: bool = False,
    low_memory: bool = False,
    checkpoint: Path | None = None,
) -> PreTrainedModel | PeftModel:
    """The base model as the adapter's settings say, and the adapter on it.

    Weights that are not on this machine are fetched. `batch_tokens` are those of a batch, prompts
    and answers together, for which memory must suffice. `low_memory` keeps the weights in 4 bits
    where training had unpacked them; `checkpoint` is a folder with other weights of the same
    adapter.
    """
    settings = read_settings(adapter)
    compute = Compute(
        device=device, dtype=settings["compute_dtype"], num_threads=None, matmul="bfloat16"
    )
    quantization = Quantization(**settings["quantization"])
    if low_memory:
        quantization = replace(quantization, dequantize=False)
    weights = obtain_exactly(settings["base"])
    folder = None if base_only else checkpoint or adapter
    quantization, _ = fit_evaluation(weights, quantization, compute, batch_tokens, folder)
    model = load_base(adapter, quantization, compute, weights)
    return load_adapter(model, folder) if folder else model


def read_settings(adapter: Path) -> dict[str, Any]:
    """How the adapter was trained: base model, quantisation, words of the prompt."""
    return json.loads((adapter / "settings.json").read_text(encoding="utf-8"))
