"""What a checkpoint holds: all that the run needs to continue to the same bits."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate.utils import save_fsdp_optimizer
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME

from finetune.records import write_json
from stages.train.adapter import adapter_weights, write_adapter
from stages.train.store import Store


def save_checkpoint(trainer: Trainer, store: Store, base: dict) -> None:
    """Write adapter, optimizer, schedule, random states and history; whole, or not at all.

    Every process must call it. `base` is the base model's name and revision.
    """
    step, folder = trainer.state.global_step, store.partial(trainer.state.global_step)
    weights = adapter_weights(trainer.model)
    main = trainer.is_world_process_zero()
    if main:
        store.begin(step)
    _wait()
    _save_optimizer(trainer, folder)
    trainer._save_rng_state(str(folder))
    partial = {"loss": trainer._tr_loss.item(), "logged": trainer._globalstep_last_logged}
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
    """Take up the sum of the losses since the last logged step, which Trainer forgets."""
    partial = json.loads((folder / _partial_loss(trainer)).read_text(encoding="utf-8"))
    trainer._tr_loss = torch.tensor(partial["loss"], device=trainer.args.device)
    trainer._globalstep_last_logged = partial["logged"]


def _save_optimizer(trainer: Trainer, folder: Path) -> None:
    """As Trainer does, but under FSDP without the model: it would write the whole frozen base."""
    if not trainer.is_fsdp_enabled:
        trainer._save_optimizer_and_scheduler(str(folder))
        return
    accelerator = trainer.accelerator
    plugin = accelerator.state.fsdp_plugin
    save_fsdp_optimizer(plugin, accelerator, trainer.optimizer, trainer.model, str(folder))
    if trainer.is_world_process_zero():
        torch.save(trainer.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)


def _partial_loss(trainer: Trainer) -> str:
    several = trainer.args.world_size > 1
    return f"partial_loss_{trainer.args.process_index}.json" if several else "partial_loss.json"


def _wait() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
