"""One session of training: from the start, or from a checkpoint, to the end or to a signal."""

import argparse
import gc
import json
import logging
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import PrinterCallback, TrainerState, TrainingArguments

from finetune.flat import attention
from finetune.model.load import add_lora, load_base
from finetune.params import Params
from finetune.text.tokens import TokenRows
from stages.train import speed
from stages.train.adapter import read_weights
from stages.train.callbacks import Progress, Resume, Stopping, Timing
from stages.train.cost import Meter
from stages.train.curves import Curves
from stages.train.fast import low_rank
from stages.train.fitting import Fitting, plan_memory
from stages.train.interruption import Interrupted, Interruption
from stages.train.steps import Plan
from stages.train.store import Store
from stages.train.trainer import FlatTrainer

log = logging.getLogger(__name__)


def train(
    paths: argparse.Namespace,
    params: Params,
    rows: tuple[TokenRows, TokenRows],
    plan: Plan,
    store: Store,
    args: TrainingArguments,
    meter: Meter,
    start: Path | None,
) -> TrainerState:
    """Train to the end and free the device; `rows` are training and validation.

    Ends the process with 128 + the signal where a signal came, and with ValueError where the loss
    is not a number.
    """
    params, budget = plan_memory(params, paths.base, plan, args.device)
    meter.estimated = budget.estimated
    model = _load_model(paths, params, plan, start)
    speed.record_passes(plan, params, budget, args.world_size)
    manifest = json.loads((paths.base / "manifest.json").read_text(encoding="utf-8"))["model"]
    with Interruption() as interruption:
        trainer = FlatTrainer(
            model=model,
            args=args,
            eval_dataset=rows[1],
            rows=rows[0],
            validation=rows[1],
            plan=plan,
            store=store,
            base={"name": manifest["name"], "revision": manifest["revision"]},
            interruption=interruption,
            meter=meter,
            ways=budget.options,
        )
        _add_callbacks(trainer, rows, paths, params, interruption, start)
        _run(trainer, interruption, start)
    state = trainer.state
    trainer.accelerator.free_memory()
    del trainer, model
    _release()
    return state


def _load_model(
    paths: argparse.Namespace, params: Params, plan: Plan, start: Path | None
) -> torch.nn.Module:
    """The base model with an adapter: fresh, of `train.init_adapter`, or of the checkpoint."""
    speed.start_compiler(params)
    base = load_base(paths.base, params.quantization, params.compute)
    plan.padded = not attention.settle(base)
    speed.cut_last_layer(base, plan)
    model = add_lora(base, params.lora, params.seed)
    low_rank.install(model, join=params.train.compile)
    speed.compile_layers(model, params)
    if start or params.train.init_adapter:
        read_weights(model, start or Path(params.train.init_adapter))
    return model


def _add_callbacks(
    trainer: FlatTrainer,
    rows: tuple[TokenRows, TokenRows],
    paths: argparse.Namespace,
    params: Params,
    interruption: Interruption,
    start: Path | None,
) -> None:
    """In this order: what draws must be there before what evaluates."""
    trainer.remove_callback(PrinterCallback)
    for callback in (
        Progress(),
        Fitting(trainer, *rows),
        Curves(paths.curves),
        Timing(trainer.meter),
        Stopping(interruption, params.train.early_stopping_patience),
        Resume(trainer, start),
    ):
        trainer.add_callback(callback)


def _run(trainer: FlatTrainer, interruption: Interruption, start: Path | None) -> None:
    trainer.args.eval_on_start = start is None
    try:
        _train(trainer, start)
    except Interrupted:
        _leave(trainer, interruption)
    except ArithmeticError as error:
        raise ValueError(
            f"{error}; the last good checkpoint is {trainer.store.newest() or 'none'}; lower "
            "train.learning_rate or train.max_grad_norm, or use compute.dtype float32"
        ) from None
    stopped = trainer.state.global_step < trainer.state.max_steps
    if stopped and interruption.signal:
        _leave(trainer, interruption)


def _train(trainer: FlatTrainer, start: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    finally:
        trainer.pop_callback(Progress).close()


def _leave(trainer: FlatTrainer, interruption: Interruption) -> None:
    """End the process; DVC takes the stage as failed, so that no half-trained adapter is kept."""
    step = trainer.state.global_step
    saved = f"saved in {trainer.store.folder}" if step else "nothing to save"
    log.warning(f"interrupted at step {step} of {trainer.plan.steps}, {saved}; run again to go on")
    raise SystemExit(128 + interruption.signal)


def _release() -> None:
    """Give the memory back, for the process that will load the adapter again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if dist.is_initialized():
        dist.destroy_process_group()
