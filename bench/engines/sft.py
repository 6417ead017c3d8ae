"""What TRL's and Unsloth's runs have in common: an SFTTrainer until the stopwatch stops."""

from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from bench.engines.rows import Counting, as_rows
from bench.runs import Run
from bench.stopwatch import Stopwatch


def train(
    run: Run, model: Any, tokenizer: Any, words: int, watch: dict[str, Any], **settings: Any
) -> dict[str, Any]:
    """Train `model` with TRL's own batches and report."""
    packing = run.options["packing"]
    if run.options.get("grouped"):
        settings["train_sampling_strategy"] = "group_by_length"
    arguments = SFTConfig(
        "unused",
        per_device_train_batch_size=run.options["batch"],
        gradient_accumulation_steps=1,
        max_steps=1_000_000,
        learning_rate=2e-4,
        optim="adamw_torch_fused",
        bf16=torch.cuda.is_available(),
        logging_steps=1000,
        report_to=[],
        save_strategy="no",
        max_length=2048 if packing or run.data == "causal" else 512,
        packing=packing,
        dataset_kwargs={"skip_prepare_dataset": not packing},
        disable_tqdm=True,
        **settings,
    )
    stopwatch = Stopwatch(lambda: trainer.data_collator.tokens(trainer), **watch)
    trainer = SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(as_rows(run.data, 4000, words)),
        processing_class=tokenizer,
        callbacks=[stopwatch],
    )
    trainer.data_collator = Counting(trainer.data_collator)
    trainer.train()
    return stopwatch.report()
