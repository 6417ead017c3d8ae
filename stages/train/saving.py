"""What a checkpoint holds: all that the run needs to continue to the same bits."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import save_fsdp_optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.training_args import ParallelMode

from finetune.records import write_json
from stages.train.adapter import adapter_weights, write_adapter
from stages.train.store import Store


def save_checkpoint(trainer: Trainer, store: Store, base: dict) -> None:
    """Write adapter, optimizer, schedule, random states and history; whole, or not at all.

    Every process must call it. `base` is the base model's name and revision. Raises OSError with
    the folder's name where the disk is full.
    """
    try:
        _write_checkpoint(trainer, store, base)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(store.folder)) from None


def _write_checkpoint(trainer: Trainer, store: Store, base: dict) -> None:
    step, folder = trainer.state.global_step, store.partial(trainer.state.global_step)
    weights = adapter_weights(trainer.model)
    main = trainer.is_world_process_zero()
    if main:
        store.begin(step)
    _wait()
    _save_optimizer(trainer, folder)
    _write_state(random_states(trainer), folder / _of_process(trainer, "rng_state", ".pth"))
    partial = {"loss": trainer.loss_sum.item(), "logged": trainer.logged_step}
    write_json(folder / _partial_loss(trainer), partial)
    _wait()
    if main:
        write_adapter(folder, trainer.model, weights, base)
        # Trainer's flags of the moment, which differ where a run was interrupted.
        trainer.state.stateful_callbacks = {}
        trainer.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        store.commit(step, trainer.state.best_global_step)
    _wait()


def restore_partial_loss(trainer: Trainer, folder: Path) -> None:
    """Take up the sum of the losses since the last logged step."""
    files, own = sorted(folder.glob("partial_loss*.json")), folder / _partial_loss(trainer)
    # Of another number of processes: the mean over them is what is logged.
    if len(files) == trainer.args.world_size and own in files:
        files = [own]
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    loss = sum(part["loss"] for part in parts) / len(parts)
    trainer.loss_sum = torch.tensor(loss, device=trainer.args.device)
    trainer.logged_step = parts[0]["logged"]


def restore_learning_rate(trainer: Trainer) -> None:
    """The learning rate that the schedule has at this step.

    The checkpoint's is another one where the run has become longer: at the end of its own schedule
    it may be 0.
    """
    schedule = trainer.lr_scheduler
    if not isinstance(schedule, LambdaLR):
        return
    groups = zip(
        trainer.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    )
    for group, base, factor in groups:
        group["lr"] = base * factor(schedule.last_epoch)
    schedule._last_lr = [group["lr"] for group in trainer.optimizer.param_groups]


def _save_optimizer(trainer: Trainer, folder: Path) -> None:
    """As Trainer does, but under FSDP without the model: it would write the whole frozen base."""
    main = trainer.is_world_process_zero()
    if trainer.is_fsdp_enabled:
        accelerator = trainer.accelerator
        plugin = accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, accelerator, trainer.optimizer, trainer.model, str(folder))
    elif main:
        _write_state(trainer.optimizer.state_dict(), folder / OPTIMIZER_NAME)
    if main:
        _write_state(trainer.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)


def random_states(trainer: Trainer) -> dict[str, Any]:
    """The states of all generators, in the form that Trainer loads them from."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        several = trainer.args.parallel_mode == ParallelMode.DISTRIBUTED
        read = torch.cuda.get_rng_state_all if several else torch.cuda.get_rng_state
        states["cuda"] = read()
    return states


def _write_state(value: Any, path: Path) -> None:
    """torch.save to an open file.

    Given a path, it names the archive inside after the file, and only where the path is ASCII: the
    same state would have other bytes in another folder.
    """
    with path.open("wb") as file:
        torch.save(value, file)


def _partial_loss(trainer: Trainer) -> str:
    return _of_process(trainer, "partial_loss", ".json")


def _of_process(trainer: Trainer, name: str, ending: str) -> str:
    several = trainer.args.world_size > 1
    return f"{name}_{trainer.args.process_index}{ending}" if several else f"{name}{ending}"


def _wait() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
