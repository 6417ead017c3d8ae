"""What a run takes: seconds, tokens a second, memory, on which machine. Differs from run to run."""

import json
import logging
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from finetune.records import write_json
from stages.train.steps import Plan

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "dvc")

log = logging.getLogger(__name__)


class Meter:
    """Adds up the sessions of a run: what interrupted ones took until their last checkpoint.

    `train` time runs from the end of a session's first step (which compiles and warms up), without
    evaluations and checkpoints.
    """

    def __init__(self, plan: Plan, device: torch.device, earlier: dict[str, Any]) -> None:
        self._plan, self._device, self._earlier = plan, device, earlier
        self._born = time.monotonic()
        self.estimated: int | None = None  # bytes on the device, before the weights were loaded
        self._started = self._warm = self._warmup = self._ended = None
        self._first_step = 0
        self._paused = 0.0
        self._phases = {"start_s": time.time() - psutil.Process().create_time()}
        self._phase_began = self._born

    def phase_ended(self, name: str) -> None:
        """What began when the last phase ended is over: a part of the way to the first step."""
        self._synchronize()
        now = time.monotonic()
        self._phases[name], self._phase_began = now - self._phase_began, now

    def start(self) -> None:
        """Training starts."""
        self._started = time.monotonic()

    def step_ended(self, step: int) -> None:
        """Call after each step; only the first one counts."""
        if self._warm is None:
            self._synchronize()
            self._warm, self._first_step = time.monotonic(), step
            self._warmup = self._warm - self._started - self._paused
            self.phase_ended("step_s")
            self._phases["step_s"] -= self._paused
            self._phases["evaluation_s"], self._paused = self._paused, 0.0
            parts = ", ".join(f"{name[:-2]} {took:.1f}" for name, took in self._phases.items())
            log.info(f"first step after {sum(self._phases.values()):.1f} s: {parts}")

    def stop(self) -> None:
        """Training has ended; what follows counts for the duration alone."""
        self._synchronize()
        self._ended = time.monotonic()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside is no training."""
        self._synchronize()
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start

    def total(self, step: int) -> dict[str, Any]:
        """The sums of all sessions, this one until `step`."""
        now = time.monotonic()
        seconds = {"duration_s": now - self._born, "train_s": 0.0, "tokens": 0, "sessions": 1}
        if self._warm is not None:
            before, after = self._plan.seen(self._first_step), self._plan.seen(step)
            seconds["train_s"] = (self._ended or now) - self._warm - self._paused
            seconds["tokens"] = after["tokens"] - before["tokens"]
        earlier = self._earlier
        sums = {key: value + earlier.get(key, 0) for key, value in seconds.items()}
        peak = max(_peak_memory(self._device), earlier.get("peak_memory_gb", 0.0))
        warmup = self._warmup or earlier.get("warmup_s")
        estimated = None if self.estimated is None else self.estimated / 1e9
        return {
            **sums,
            "warmup_s": warmup,
            "first_step": earlier.get("first_step", {}) if self._warm is None else self._phases,
            "peak_memory_gb": peak,
            "estimated_memory_gb": estimated or earlier.get("estimated_memory_gb"),
        }

    def write(self, path: Path, step: int) -> None:
        """Write the sums, for the next session of this run."""
        write_json(path, self.total(step))

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def read_cost(path: Path) -> dict[str, Any]:
    """The sums of the sessions until now; {} at the start."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def describe_cost(total: dict[str, Any], device: torch.device, fingerprint: str) -> dict[str, Any]:
    """metrics/cost.json: `total` rounded, the hardware, and the run that it belongs to."""
    speed = total["tokens"] / total["train_s"] if total["train_s"] else None
    return {
        "duration_s": round(total["duration_s"], 1),
        "warmup_s": None if total["warmup_s"] is None else round(total["warmup_s"], 1),
        # Of the last session, on the way to its first step: imports and checks, weights, what fits
        # into memory, evaluation, the step. The compiler's work is in the last three.
        "first_step": {name: round(took, 1) for name, took in total["first_step"].items()},
        "tokens_per_s": None if speed is None else round(speed),
        "peak_memory_gb": round(total["peak_memory_gb"], 2),
        "estimated_memory_gb": _rounded(total["estimated_memory_gb"]),
        "sessions": total["sessions"],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "hardware": _hardware(device),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in LIBRARIES}},
        "fingerprint": fingerprint,
    }


def _rounded(gigabytes: float | None) -> float | None:
    return None if gigabytes is None else round(gigabytes, 2)


def _peak_memory(device: torch.device) -> float:
    """This process's, in GB of 10^9 bytes: of the accelerator, or of the machine on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"
