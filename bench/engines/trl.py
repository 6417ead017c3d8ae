"""TRL's SFTTrainer with Liger's kernels and checkpointing."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.engines.rows import adapter_targets
from bench.engines.sft import train
from bench.runs import Run


def measure(run: Run, model: Path, words: int, watch: dict[str, Any]) -> dict[str, Any]:
    """Train until the stopwatch stops, and report."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa"
    )
    loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=True)
    targets = adapter_targets(run.adapter)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")
    settings = {"use_liger_kernel": True, "gradient_checkpointing": True}
    return train(run, get_peft_model(loaded, lora), tokenizer, words, watch, **settings)
