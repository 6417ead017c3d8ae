"""Unsloth, packed or padded, with its own checkpointing, or none."""

from pathlib import Path
from typing import Any

from unsloth import FastLanguageModel  # isort: skip  (must come before transformers)

import torch

from bench.engines.rows import adapter_targets
from bench.engines.sft import train
from bench.runs import Run


def measure(run: Run, model: Path, words: int, watch: dict[str, Any]) -> dict[str, Any]:
    """Train until the stopwatch stops, and report."""
    checkpointing = run.options["checkpointing"]
    loaded, tokenizer = FastLanguageModel.from_pretrained(
        str(model), max_seq_length=2048, load_in_4bit=True, dtype=torch.bfloat16
    )
    loaded = FastLanguageModel.get_peft_model(
        loaded,
        r=16,
        target_modules=adapter_targets(run.adapter),
        lora_alpha=32,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing=checkpointing,
    )
    settings = {"gradient_checkpointing": bool(checkpointing)}
    return train(run, loaded, tokenizer, words, watch, **settings)
