"""What happens beside the steps: resuming, signals, early stopping, timing, the progress bar."""

import logging
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments

from stages.train.interruption import Interruption
from stages.train.saving import restore_learning_rate, restore_partial_loss

log = logging.getLogger(__name__)


class Resume(TrainerCallback):
    """Finds out what fits into memory, and puts back what Trainer's own resuming leaves out."""

    def __init__(self, trainer: Any, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        trainer = self._trainer
        trainer.meter.start()
        if not trainer.is_fsdp_enabled:  # under FSDP the processes cannot try by themselves
            trainer.fitting.choose(trainer.probe, args.device)
        trainer.meter.phase_ended("fit_s")
        if self._checkpoint:
            state.eval_steps = args.eval_steps
            forget_lost_best(state, self._checkpoint.parent)
            restore_partial_loss(self._trainer, self._checkpoint)
            restore_learning_rate(self._trainer)
            self._trainer.evaluate_pending(self._checkpoint)
        elif args.world_size > 1:
            # Trainer gives every process the same seed, and so the same dropout.
            torch.manual_seed(args.seed + args.process_index)


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


class Stopping(TrainerCallback):
    """Ends the run after a signal, or when the evaluation loss no longer falls."""

    def __init__(
        self, interruption: Interruption, args: TrainingArguments, patience: int | None
    ) -> None:
        self._interruption, self._patience = interruption, patience
        self._metric = args.metric_for_best_model

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> Any:
        if self._interruption.agreed():
            control.should_save = control.should_training_stop = True
        return control

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> Any:
        if is_exhausted(state, self._metric, self._patience):
            control.should_save = control.should_training_stop = True
        return control


def is_better(metrics: dict[str, float], state: TrainerState, args: TrainingArguments) -> bool:
    """Whether an evaluation is better than all before it; they are losses, so lower."""
    best = state.best_metric
    return best is None or metrics[args.metric_for_best_model] < best


def is_exhausted(state: TrainerState, metric: str, patience: int | None) -> bool:
    """Whether the last `patience` evaluations brought nothing better than the one before them."""
    losses = [entry[metric] for entry in state.log_history if metric in entry]
    return bool(losses and patience) and len(losses) - 1 - losses.index(min(losses)) >= patience


class Timing(TrainerCallback):
    """Tells the meter of each step and of the end."""

    def __init__(self, meter: Any) -> None:
        self._meter = meter

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._meter.step_ended(state.global_step)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._meter.stop()


class Progress(TrainerCallback):
    """One bar over the whole run, on the main process."""

    _bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        off = not state.is_world_process_zero
        total, done = state.max_steps, state.global_step
        self._bar = tqdm(total=total, initial=done, desc="train", unit="step", disable=off)
        self._shown: dict[str, str] = {}

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any, **_: Any) -> None:
        for key in ("loss", "eval_loss"):
            if key in logs:
                self._shown[key] = f"{logs[key]:.3f}"
        self._bar.set_postfix(self._shown, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is and go on below it."""
        if self._bar is not None:
            self._bar.close()
