"""Memory before step 0: what a step will take by estimate, and whether it does."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from finetune.flat.batches import MicroBatch, collate, fill
from finetune.model import memory
from finetune.model.memory import Fit
from finetune.params import Params
from finetune.text.tokens import TokenRows
from stages.train.steps import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """The ways to cut a step that may fit, fastest first; of the first, bytes by estimate.

    `available` bytes are left on the device before anything is loaded. None on a CPU.
    """

    options: list[Fit]
    estimated: int | None = None
    available: int | None = None


def plan_memory(
    params: Params, base: Path, plan: Plan, device: torch.device
) -> tuple[Params, Budget]:
    """`params` with 4-bit weights where dequantised ones leave no room, and what may be tried.

    Sets the token budget of `plan` to that of the first option. Raises ValueError where nothing
    fits. With train.memory `fixed`, what params.yaml says is all.
    """
    options = memory.choices(params, int(plan.lengths.max()), plan.share)
    if params.train.memory == "fixed":
        options = options[:1]
    if device.type != "cuda":
        return params, Budget(options)
    model, available = skeleton(base), memory.available_bytes(device)
    if params.train.memory == "auto":
        params, options = memory.preflight(model, params, options, available)
    plan.budget = options[0].tokens
    estimated = memory.estimate(model, params, options[0])
    log.info(f"memory: {estimated.total / 1e9:.1f} GB by estimate")
    return params, Budget(options, estimated.total, available)


def skeleton(base: Path) -> torch.nn.Module:
    """The model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))


class Fitting(TrainerCallback):
    """Tries the longest batches before step 0, and cuts steps smaller until they fit."""

    def __init__(self, trainer: Any, rows: TokenRows, validation: TokenRows) -> None:
        self._trainer, self._rows, self._validation = trainer, rows, validation

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        passes = self._trainer.passes
        if len(passes.options) == 1 or self._trainer.is_fsdp_enabled:
            return  # nothing to choose; under FSDP the processes cannot try by themselves
        passes.apply(memory.settle(passes.options, self._probe))

    def _probe(self, option: Fit) -> None:
        """Raise OutOfMemoryError where, on any process, a step of `option` does not fit."""
        trainer = self._trainer
        trainer.passes.apply(option)
        failed = _runs_out(lambda: self._try(option))
        trainer.model.zero_grad(set_to_none=True)
        memory.release()
        if _any_process(failed, trainer.args.device):
            raise torch.OutOfMemoryError(f"{option.tokens} tokens")

    def _try(self, option: Fit) -> None:
        """The longest examples that a pass may hold, in training and in evaluation."""
        trainer, device = self._trainer, self._trainer.args.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            held = torch.empty(_state_bytes(trainer.model), dtype=torch.uint8, device=device)
            trainer.model.train()
            longest = self._longest(self._rows, option).to(device)
            trainer.passes.backward(trainer.model, longest, 1.0)
            trainer.model.eval()
            with torch.no_grad():
                trainer.forward(trainer.model, self._longest(self._validation, option).to(device))
            del held

    def _longest(self, rows: TokenRows, option: Fit) -> MicroBatch:
        padded = self._trainer.plan.padded
        group = fill(rows.lengths.tolist(), option.tokens, padded)[0]
        return collate([rows[at] for at in group], padded)


def _runs_out(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except torch.OutOfMemoryError:
        return True
    return False


def _any_process(failed: bool, device: torch.device) -> bool:
    if not dist.is_initialized():
        return failed
    flag = torch.tensor(float(failed), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _state_bytes(model: torch.nn.Module) -> int:
    """Room for the optimizer's two states, which come with the first step."""
    return 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
