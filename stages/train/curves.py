"""dvclive curves at true steps; the same run gives the same bytes, interrupted or not."""

from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback, TrainerState

TABLES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "eval_loss": "eval/loss",
}


class Curves(TrainerCallback):
    """Draws each entry of Trainer's history as it comes, on the main process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._live = None
        if state.is_world_process_zero:
            self._live = open_curves(self._folder, state.log_history)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any, **_: Any) -> None:
        if self._live:
            _draw(self._live, {**logs, "step": state.global_step})

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._live:
            close_curves(self._live)


def open_curves(folder: Path, history: list[dict[str, float]]) -> Live:
    """A Live that writes nothing but its tables, with `history` drawn.

    Never Live's own `resume`: it loses or doubles steps.
    """
    live = Live(dir=str(folder), dvcyaml=None, save_dvc_exp=False)
    for entry in history:
        _draw(live, entry)
    return live


def write_curves(folder: Path, history: list[dict[str, float]]) -> None:
    """Draw a whole history at once."""
    close_curves(open_curves(folder, history))


def close_curves(live: Live) -> None:
    """End the Live, without the file of last values, which metrics/train.json has too."""
    live.end()
    Path(live.metrics_file).unlink(missing_ok=True)


def _draw(live: Live, entry: dict[str, float]) -> None:
    live.step = entry["step"]
    sources = {key: f"eval/{key[5:]}" for key in entry if key.startswith("eval_loss_")}
    for key, table in (TABLES | sources).items():
        if key in entry:
            live.log_metric(table, float(entry[key]))
