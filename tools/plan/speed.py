"""How long a run takes and what it costs, from what was measured: never from a data sheet.

A measurement is a line of bench/results/*.jsonl; of measured.jsonl beside this file, which holds
figures of bench/RESULTS.md whose raw lines were not kept; or this repository's own last run,
metrics/cost.json. The one most like the run is taken. Another shape is scaled by its operations for
a token, and called an estimate; another device is never scaled to.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.plan.data import Data
from tools.plan.schedule import Schedule

TRANSCRIBED = Path(__file__).with_name("measured.jsonl")
# Of the step times two H200s by DDP, beside one (bench/RESULTS.md): 1.95 / 2.
SCALING = 0.975
ROW_TOKENS = {"law": 250, "causal": 2048, "food": 2048}  # of the benchmark's examples, on average
MOST_SCALED = 4.0  # times the operations of a token; a speed says nothing about models beyond
SAME = 0.02  # up to which share two numbers of operations count as one shape


@dataclass(frozen=True)
class Work:
    """What decides on the speed of a run. `step_tokens` are of one process's step."""

    layer_weights: int
    head_weights: int
    supervised_share: float
    step_tokens: float
    compiled: bool
    recomputed: bool
    dequantized: bool
    float8: bool

    @property
    def operations(self) -> float:
        """For a token: forward and back to the inputs; made again where activations are."""
        passes = 6 if self.recomputed else 4
        return passes * (self.layer_weights + self.supervised_share * self.head_weights)


@dataclass(frozen=True)
class Measurement:
    """A speed that was measured, on what, and where it is written."""

    source: str
    hardware: str
    work: Work
    tokens_per_s: float
    warmup_s: float | None
    cap_gb: float | None = None

    @property
    def on_cpu(self) -> bool:
        """As metrics/cost.json writes a CPU."""
        return self.hardware.endswith(" threads")

    def __str__(self) -> str:
        cap = f" capped at {self.cap_gb:g} GB" if self.cap_gb else ""
        return f"{self.tokens_per_s:,.0f} tokens/s on {self.hardware}{cap} ({self.source})"


@dataclass(frozen=True)
class Duration:
    """Seconds of training, of evaluations on the way, and of loading and warm-up."""

    measurement: Measurement
    tokens_per_s: float  # of one process
    scaled: list[str]  # what differs from the measurement
    train_s: float | None
    evaluation_s: float | None
    warmup_s: float
    at_most: bool = False  # the rows' lengths are not known

    @property
    def total_s(self) -> float | None:
        """All of it; None where the steps are not known."""
        if self.train_s is None:
            return None
        return self.train_s + (self.evaluation_s or 0) + self.warmup_s


def read_measurements(root: Path) -> list[Measurement]:
    """All speeds of this trainer that bench has measured."""
    found = list(_read(TRANSCRIBED, ""))
    for path in sorted((root / "bench/results").glob("*.jsonl")):
        found += _read(path, f"bench/results/{path.name}, ")
    return found


def _read(path: Path, name: str) -> Iterator[Measurement]:
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        run = re.match(r"own-(law|causal|food)(?:-(\d+))?", entry.get("run", ""))
        if run and "tokens_per_s" in entry and "layer_weights" in entry:
            section = entry.get("section")
            source = f"bench/RESULTS.md, {section}, " if section else name
            yield _measurement(entry, run, f"{source}{entry['run']}")


def _measurement(entry: dict[str, Any], run: re.Match[str], source: str) -> Measurement:
    kind, examples = run[1], int(run[2] or 8)
    work = Work(
        layer_weights=int(entry["layer_weights"]),
        head_weights=int(entry["head_weights"]),
        supervised_share=entry["supervised_share"],
        step_tokens=examples * ROW_TOKENS[kind],
        compiled="eager" not in entry["run"],
        recomputed=entry["fit"][1],
        dequantized=entry["dequantized"],
        float8="float8" in entry["run"],
    )
    return Measurement(
        source,
        entry["hardware"],
        work,
        entry["tokens_per_s"],
        entry.get("warmup_s"),
        entry.get("cap_gb"),
    )


def choose(
    found: list[Measurement], work: Work, kind: str | None, memory: float | None
) -> Measurement | None:
    """The measurement most like `work` on a device of that `kind`, a part of its name.

    With `kind` None, of memory alone, on any device, best of one that was held to as many GB.
    None where nothing was measured on such a device, or of a model of about that size.
    """
    here = [
        each
        for each in found
        if (kind is None or _is_of(each.hardware, kind)) and _is_near(each.work, work)
    ]
    cap = memory if kind is None else None
    return min(here, key=lambda each: _distance(each, work, cap), default=None)


def _is_of(hardware: str, kind: str) -> bool:
    """Whole words: an A100 is no A10."""
    return re.search(rf"(?<!\w){re.escape(kind)}(?!\w)", hardware) is not None


def _is_near(one: Work, other: Work) -> bool:
    return abs(math.log(one.operations / other.operations)) <= math.log(MOST_SCALED)


def _distance(each: Measurement, work: Work, memory: float | None) -> tuple[float, ...]:
    other, ratio = each.work, each.work.operations / work.operations
    capped = 0.0
    if memory is not None:
        capped = abs(math.log((each.cap_gb or 141) / (memory / 1e9)))
    return (
        other.float8 != work.float8,
        other.recomputed != work.recomputed,
        other.compiled != work.compiled,
        round(2 * abs(math.log(ratio))),
        other.dequantized != work.dequantized,
        (other.supervised_share > 0.5) != (work.supervised_share > 0.5),
        round(capped, 1),
        abs(math.log(other.step_tokens / work.step_tokens)),
    )


def estimate_duration(
    measurement: Measurement, work: Work, data: Data, schedule: Schedule
) -> Duration:
    """How long the run takes at the measured speed, scaled to its operations for a token."""
    speed = measurement.tokens_per_s * measurement.work.operations / work.operations
    several = SCALING if schedule.processes > 1 else 1.0
    tokens = schedule.tokens
    at_most = tokens is None and schedule.steps is not None
    if at_most:
        tokens = schedule.steps * schedule.most_tokens_per_step
    validation = data.validation.tokens if data.validation else None
    evaluation_s = None
    if validation is not None and schedule.evaluations is not None:
        # Forward alone: two operations for a weight, of four or six.
        evaluated = schedule.evaluations * validation / schedule.processes
        evaluation_s = evaluated / (speed * (3 if work.recomputed else 2))
    scaled = list(_differences(measurement.work, work))
    if schedule.processes > 1:
        scaled.append(f"{schedule.processes} processes as {SCALING} of as many alone, as two were")
    return Duration(
        measurement=measurement,
        tokens_per_s=speed,
        scaled=scaled,
        train_s=None if tokens is None else tokens / (speed * schedule.processes * several),
        evaluation_s=evaluation_s,
        warmup_s=measurement.warmup_s or 0.0,
        at_most=at_most,
    )


def _differences(measured: Work, work: Work) -> Iterator[str]:
    """What the measurement was not of, in words."""
    ratio = measured.operations / work.operations
    if abs(ratio - 1) > SAME:
        yield f"scaled by {ratio:.3g} for the operations of a token"
    for name, one, other in (
        ("float8", "in float8", "in bfloat16"),
        ("compiled", "compiled", "not compiled"),
        ("dequantized", "dequantised", "in 4 bits"),
    ):
        if getattr(measured, name) != getattr(work, name):
            yield f"measured {one if getattr(measured, name) else other}"
    steps = measured.step_tokens / work.step_tokens
    if not 0.5 <= steps <= 2:
        yield f"measured with {measured.step_tokens:,.0f} tokens a step"
