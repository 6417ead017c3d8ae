"""transformers' Trainer over flat batches: one batch of its own is one whole optimizer step."""

import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState

from finetune.flat.batches import MicroBatch
from finetune.flat.losses import token_nll
from finetune.model.memory import Fit
from finetune.text.tokens import TokenRows
from stages.train.ahead import Ahead
from stages.train.cost import Meter
from stages.train.evaluation import evaluation_batches, measure
from stages.train.health import Health
from stages.train.interruption import Interrupted, Interruption
from stages.train.passes import Passes
from stages.train.saving import save_checkpoint
from stages.train.speed import Refresh
from stages.train.steps import Plan, Step, Steps
from stages.train.store import Store

log = logging.getLogger(__name__)


class FlatTrainer(Trainer):
    """Trainer with our own batches, loss, evaluation and checkpoints.

    Its gradient accumulation stays 1: `training_step` cuts the step into micro-batches. Its data
    loader is neither sharded nor dispatched by accelerate: each process reads its own share.
    """

    def __init__(
        self,
        *,
        rows: TokenRows,
        validation: TokenRows,
        plan: Plan,
        store: Store,
        base: dict[str, Any],
        interruption: Interruption,
        meter: Meter,
        ways: list[Fit],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.plan, self.store, self.meter, self.health = plan, store, meter, Health()
        pinned = self.args.device.type == "cuda"
        self._steps = Ahead(Steps(rows, plan, self.args.process_index), pinned)
        self.passes = Passes(self, plan, self._steps, ways, self.forward)
        self._validation, self._base, self._interruption = validation, base, interruption
        self.add_callback(Refresh())

    def get_train_dataloader(self) -> DataLoader:
        """One item is one process's share of one step."""
        return DataLoader(
            self._steps,
            batch_size=1,
            collate_fn=lambda steps: steps[0],
            # Of its own, so that opening the loader draws nothing from the run's generator.
            generator=torch.Generator(),
        )

    def training_step(
        self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over the step's micro-batches; this process's part of the loss."""
        return self.passes.run(model, inputs)

    def forward(self, model: nn.Module, batch: MicroBatch) -> torch.Tensor:
        """The sum of the negative log likelihoods of one micro-batch on the device."""
        return token_nll(model, batch).sum()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The validation loss per supervised token, and that of its first micro-batches."""
        share = (self.args.process_index, self.args.world_size)
        batches = evaluation_batches(self._validation, self.plan.budget, self.plan.padded, *share)
        with self.meter.pause():
            losses = measure(self.model, batches, self.args.device, self._sum, self._stop_if_told)
        metrics = {"eval_loss": losses.mean, "eval_sample_loss": losses.sample}
        self.log(dict(metrics))
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_pending(self, checkpoint: Path) -> None:
        """Make up for the evaluation in which the last session was interrupted."""
        if is_evaluated(self.state):
            return
        self._determine_best_metric(self._evaluate(None, None), None)
        self._load_rng_state(str(checkpoint))
        self._save_checkpoint(self.model, None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep what is a function of the run; no times, which differ from run to run."""
        if "train_runtime" in logs:
            return
        logs["epoch"] = round(self.plan.epochs(self.state.global_step), 4)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: Trainer would count padded batches."""
        return 0

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """Nothing to count: the plan knows the supervised tokens of all processes."""

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.health.note(norm, self.state.global_step + 1)
        return norm

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save:
            self.health.check()
        try:
            super()._maybe_log_save_evaluate(*args, **options)
        except Interrupted:
            # In the middle of an evaluation: the next session begins with it.
            self._save_checkpoint(self.model, None)
            raise

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """The best evaluation always has a checkpoint."""
        is_best = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= is_best
        return is_best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.pause():
            save_checkpoint(self, self.store, self._base)
        if self.is_world_process_zero():
            self.meter.write(self.store.folder / "cost.json", self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing left to load: the adapter was read, strictly, before the model was wrapped."""

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.args.world_size > 1:
            dist.all_reduce(values)
        return values

    def _stop_if_told(self) -> None:
        if self._interruption.agreed():
            raise Interrupted


def is_evaluated(state: TrainerState) -> bool:
    """Whether the evaluation that is due at the state's step was made, if one is due."""
    due = state.global_step >= state.max_steps or state.global_step % state.eval_steps == 0
    made = any(e["step"] == state.global_step and "eval_loss" in e for e in state.log_history)
    return made or not due


def forget_lost_best(state: TrainerState, folder: Path) -> None:
    """Judge the best anew from here on, where its checkpoint is not in `folder`."""
    best, here = state.best_global_step, state.global_step
    if best is None or (folder / f"step-{best}").exists():
        return
    log.warning(f"warning: step-{best}, the best until now, is not beside step-{here}: forgotten")
    state.best_global_step = state.best_metric = None
    of_this_step = (e for e in state.log_history if "eval_loss" in e and e["step"] == here)
    for entry in list(of_this_step):
        state.log_history.remove(entry)
