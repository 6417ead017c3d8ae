"""What happens beside the steps: resuming, signals, early stopping, timing, the progress bar."""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerState

from stages.train.interruption import Interruption
from stages.train.saving import restore_learning_rate, restore_partial_loss
from stages.train.trainer import forget_lost_best


class Resume(TrainerCallback):
    """Puts back what Trainer's own resuming leaves out."""

    def __init__(self, trainer: Any, checkpoint: Path | None) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._trainer.meter.start()
        if self._checkpoint:
            state.eval_steps = args.eval_steps
            forget_lost_best(state, self._checkpoint.parent)
            restore_partial_loss(self._trainer, self._checkpoint)
            restore_learning_rate(self._trainer)
            self._trainer.evaluate_pending(self._checkpoint)
        elif args.world_size > 1:
            # Trainer gives every process the same seed, and so the same dropout.
            torch.manual_seed(args.seed + args.process_index)


class Stopping(TrainerCallback):
    """Ends the run after a signal, or when the evaluation loss no longer falls."""

    def __init__(self, interruption: Interruption, patience: int | None) -> None:
        self._interruption, self._patience = interruption, patience

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> Any:
        if self._interruption.agreed():
            control.should_save = control.should_training_stop = True
        return control

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> Any:
        if is_exhausted(state, self._patience):
            control.should_save = control.should_training_stop = True
        return control


def is_exhausted(state: TrainerState, patience: int | None) -> bool:
    """Whether the last `patience` evaluations brought nothing better than the one before them."""
    losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
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
