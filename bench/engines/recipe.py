"""The law recipe as it is commonly written: Trainer, padding to the limit, checkpointing."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from bench.engines.rows import Counting, adapter_targets, as_rows
from bench.runs import Run
from bench.stopwatch import Stopwatch

LONGEST = 512


def measure(run: Run, model: Path, words: int, watch: dict[str, Any]) -> dict[str, Any]:
    """Train until the stopwatch stops, and report."""
    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, device_map={"": 0 if torch.cuda.is_available() else "cpu"}
    )
    loaded = prepare_model_for_kbit_training(loaded, use_gradient_checkpointing=True)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=adapter_targets(run.adapter))
    collator = Counting(pad_to(LONGEST))
    stopwatch = Stopwatch(lambda: collator.tokens(trainer), **watch)
    arguments = TrainingArguments(
        "unused",
        per_device_train_batch_size=run.options["batch"],
        gradient_accumulation_steps=run.options["accumulation"],
        max_steps=1_000_000,
        learning_rate=2.5e-5,
        optim="paged_adamw_8bit",
        bf16=torch.cuda.is_available(),
        logging_steps=1000,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        get_peft_model(loaded, lora),
        arguments,
        train_dataset=as_rows(run.data, 4000, words),
        data_collator=collator,
        callbacks=[stopwatch],
    )
    trainer.train()
    return stopwatch.report()


def pad_to(length: int | None) -> Any:
    """A collator that pads to `length`, or to the longest of the batch, with a mask."""

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = length or max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": torch.zeros(len(rows), width, dtype=torch.long),
            "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
            "labels": torch.full((len(rows), width), -100),
        }
        for number, row in enumerate(rows):
            size = len(row["input_ids"])
            batch["input_ids"][number, :size] = torch.tensor(row["input_ids"])
            batch["labels"][number, :size] = torch.tensor(row["labels"])
            batch["attention_mask"][number, :size] = 1
        return batch

    return collate
