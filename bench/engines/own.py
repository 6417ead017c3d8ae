"""This project: the trainer of stages/train, with its own batches, passes and memory plan."""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import finetune  # noqa: F401  isort: skip  (sets up memory; must come before torch)

import torch
from transformers import PrinterCallback

from bench.runs import Run
from bench.stopwatch import Stopwatch
from bench.workloads import write_split
from finetune.model.load import resolve
from finetune.params import Params, load
from finetune.text.tokens import TokenRows
from stages.train.callbacks import Resume, Timing
from stages.train.cost import Meter
from stages.train.fast.fitting import Memory, plan_memory
from stages.train.interruption import Interruption
from stages.train.settings import processes, quieten, training_arguments
from stages.train.steps import Plan, make_plan
from stages.train.training import FlatTrainer, load_model

PRESETS = {"law": "presets/law-mistral-7b.yaml", "food": "presets/food-mistral-24b.yaml"}
MANY = 1_000_000  # steps: the stopwatch ends the run
CAPTURING = 1600  # examples of warm-up where passes are captured, until most shapes have come


def measure(run: Run, model: Path, words: int, watch: dict[str, Any]) -> dict[str, Any]:
    """Train until the stopwatch stops, and report."""
    quieten()
    params = make_params(run)
    with tempfile.TemporaryDirectory() as folder:
        rows = TokenRows(write_split(Path(folder) / "train", run.data, 4000, words))
        plan = make_plan(params, rows, processes())
        arguments = training_arguments(params, resolve(params.compute), plan, Path(folder) / "out")
        memory = plan_memory(params, model, plan, arguments.device)
        trainer = make_trainer(run, params, model, rows, plan, arguments, memory)
        if plan.captured:
            watch |= {"warmup_steps": max(20, CAPTURING // run.examples)}
        stopwatch = Stopwatch(lambda: plan.seen(trainer.state.global_step)["tokens"], **watch)
        trainer.add_callback(stopwatch)
        trainer.train()
    facts = {
        "fit": [trainer.fitting.fit.tokens, trainer.fitting.fit.recomputed],
        "dequantized": memory.quantization.dequantize,
        "captured": plan.captured,
        "estimated_gb": memory.estimated and round(memory.estimated / 1e9, 1),
        "supervised_share": round(float(plan.supervised.sum() / plan.lengths.sum()), 4),
    }
    return stopwatch.report() | facts


def make_params(run: Run) -> Params:
    """The preset's params with the run's options."""
    params, options = load(PRESETS[run.adapter]), run.options
    train = {
        "max_steps": MANY,
        "num_train_epochs": None,
        "per_device_train_batch_size": run.examples // processes(),
        "gradient_accumulation_steps": 1,
        "logging_steps": MANY,
        "eval_steps": MANY,
        "save_steps": MANY,
        "memory": "fixed",
        "micro_batch_tokens": 20480,
        "compile": torch.cuda.is_available(),
    }
    known = ("compile", "memory", "optim", "micro_batch_tokens")
    train |= {key: options[key] for key in known if key in options}
    return replace(
        params,
        compute=replace(
            params.compute,
            device="auto",
            dtype="auto",
            matmul=options.get("matmul", "bfloat16"),
        ),
        lora=replace(params.lora, dropout=options.get("dropout", params.lora.dropout)),
        quantization=replace(params.quantization, dequantize=options.get("dequantize", True)),
        train=replace(params.train, **train),
    )


def make_trainer(
    run: Run,
    params: Params,
    model: Path,
    rows: TokenRows,
    plan: Plan,
    arguments: Any,
    memory: Memory,
) -> FlatTrainer:
    """The trainer as `stages.train.training` makes it, on `models/base` or a folder of weights."""
    weights = None if (model / "manifest.json").exists() else model
    adapted = load_model(params, model, plan, memory, weights=weights)
    for name in ("captured", "reads_few", "filled"):
        setattr(plan, name, run.options.get(name, getattr(plan, name)))
    trainer = FlatTrainer(
        model=adapted,
        args=arguments,
        rows=(rows, rows),
        plan=plan,
        store=SimpleNamespace(folder=Path(arguments.output_dir)),
        base={"name": "random", "revision": None},
        interruption=Interruption(),
        meter=Meter(plan, arguments.device, {}),
        memory=memory,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Resume(trainer, None))
    trainer.add_callback(Timing(trainer.meter))
    return trainer
