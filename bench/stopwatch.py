"""Times windows of training steps inside of any Trainer."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback


class Stopwatch(TrainerCallback):
    """After some steps of warm-up, times windows of about `seconds`, then ends the training.

    The device is waited for at the bounds of windows only. `count` returns real tokens (no
    padding) of all steps until now.
    """

    def __init__(
        self,
        count: Any,
        *,
        seconds: float,
        windows: int,
        warmup_steps: int,
        profile: Path | None = None,
    ) -> None:
        self._profile = profile
        self._count, self._seconds, self._windows = count, seconds, windows
        self._warmup_steps = warmup_steps
        self._speeds: list[float] = []
        self._steps_a_window = 0
        self._born = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._profile and state.global_step == self._warmup_steps - 1:
            activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
            self._profiler = profile(activities=activities).__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        step = state.global_step
        if self._profile and step == self._warmup_steps:
            self._write_profile()
        if step == self._warmup_steps:
            self._mark(step)
            self._warmup = self._at - self._begun
            _reset_peak()
        elif step == self._warmup_steps + 2:
            # Two steps tell how many fill a window; they are measured again.
            count = max(1, round(2 * self._seconds / (_now() - self._at)))
            self._steps_a_window = _agree(count)
            self._mark(step)
        elif self._steps_a_window and step == self._step + self._steps_a_window:
            tokens, seconds = self._count() - self._tokens, _now() - self._at
            self._speeds.append(tokens / seconds)
            self._step_seconds = seconds / self._steps_a_window
            self._mark(step)
        if len(self._speeds) == self._windows:
            control.should_training_stop = True
        return control

    def report(self) -> dict[str, Any]:
        """The median window, and what it took."""
        return {
            "tokens_per_s": round(statistics.median(self._speeds)),
            "windows": [round(speed) for speed in self._speeds],
            "step_s": round(self._step_seconds, 4),
            "warmup_s": round(self._warmup, 1),
            "load_s": round(self._begun - self._born, 1),
            **_memory(),
        }

    def _write_profile(self) -> None:
        """The kernels of the last step of the warm-up, by time."""
        _now()
        self._profiler.__exit__(None, None, None)
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self._profiler.key_averages().table(sort_by=key, row_limit=60)
        self._profile.write_text(table, encoding="utf-8")

    def _mark(self, step: int) -> None:
        self._at, self._tokens, self._step = _now(), self._count(), step


def _agree(count: int) -> int:
    """The first process's number: all must stop after the same step."""
    agreed = [count]
    if dist.is_initialized():
        dist.broadcast_object_list(agreed)
    return agreed[0]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _memory() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 1),
    }
