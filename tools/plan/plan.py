"""All parts of a plan, put together; no word of it is printed here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from finetune.model.memory import skeleton
from finetune.model.targets import check_targets
from finetune.params import Params, load
from stages.train.fast.fitting import Fit, estimate
from tools.plan.access import Access, check_access
from tools.plan.asked import Asked
from tools.plan.base import find_base, weights_of
from tools.plan.data import Data, find_data
from tools.plan.devices import SIZES, Device, find_device, this_device
from tools.plan.disk import Disk, plan_disk
from tools.plan.findings import Finding, spell
from tools.plan.idle import find_idle
from tools.plan.memory import Held, hold, hold_on_cpu, on_gpu, size_of
from tools.plan.own import is_same_run, read_own
from tools.plan.schedule import Schedule, check_schedule, make_schedule
from tools.plan.speed import (
    Duration,
    Measurement,
    Work,
    choose,
    estimate_duration,
    read_measurements,
)


@dataclass(frozen=True)
class Plan:
    """What is known of a run before it starts. `held` has one entry for each device looked at."""

    file: str
    name: str
    device: str  # cpu | cuda
    base: str  # where config.json is from
    weights: int | None
    trained: int | None
    data: Data
    schedule: Schedule
    held: list[Held]
    disk: Disk
    access: list[Access]
    duration: Duration | None = None
    no_duration: str = ""
    done: dict[str, Any] | None = None  # metrics/cost.json, where this very run was made
    price: float | None = None
    idle: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    @property
    def hours(self) -> float | None:
        """Of the train stage."""
        total = self.duration.total_s if self.duration else None
        return None if total is None else total / 3600

    @property
    def cost(self) -> float | None:
        """At `price` an hour for each device."""
        if self.price is None or self.hours is None:
            return None
        return self.price * self.hours * self.schedule.processes

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self) | {"hours": self.hours, "cost": self.cost}
        found["held"] = [each.as_dict() for each in self.held]
        if self.duration:
            found["duration"] |= {"total_s": self.duration.total_s}
        return found


def make_plan(path: Path, asked: Asked, root: Path) -> Plan:
    """The plan of the params file `path` in the repository `root`.

    Raises ValueError for what is wrong with its values, or names no layer of the model.
    """
    params, values = load(path), YAML(typ="safe").load(path)
    device = asked.device or (this_device() if params.compute.device != "cpu" else None)
    kind = "cuda" if device or params.compute.device == "cuda" else "cpu"
    base = find_base(params.model, root, ask=not asked.offline)
    here = weights_of(params.model, root)
    tokenizer = base.folder / "tokenizer.json" if base.folder else None
    given = (asked.rows, asked.row_tokens or params.preprocess.max_length) if asked.rows else None
    data = find_data(
        params,
        values,
        root,
        tokenizer=tokenizer if tokenizer and tokenizer.is_file() else None,
        given=given,
    )
    schedule = make_schedule(params, data, root)
    model = None
    if base.config is not None:
        with base.config_folder() as folder:
            model = skeleton(folder)
        check_targets(model, params.lora)
    held = _hold(model, params, data, schedule, device, kind)
    parts = estimate(model, on_gpu(params), Fit(1, False)) if model is not None else None
    trained = parts.adapter // 8 if parts else None  # in float32, with its gradient
    weights = sum(p.numel() for p in model.parameters()) if model is not None else None
    disk = plan_disk(
        params,
        data,
        root,
        weights=weights,
        trained=trained,
        state_bytes=parts.optimizer // max(1, trained) if parts else 0,
        here=here,
    )
    access = check_access(params, here, offline=asked.offline)
    own = read_own(root)
    measured = [own[0]] if own else []
    if kind == "cuda":
        measured += read_measurements(root)
    duration, why = _duration(model, params, data, schedule, held, device, kind, measured)
    return Plan(
        file=str(path),
        name=params.name,
        device=kind,
        base=base.where,
        weights=weights,
        trained=trained,
        data=data,
        schedule=schedule,
        held=held,
        disk=disk,
        access=access,
        duration=duration,
        no_duration=why,
        done=own[1] if own and is_same_run(root, values) else None,
        price=asked.price,
        idle=find_idle(params, kind, schedule, model),
        warnings=_warnings(params, data, schedule, held, disk, access, device),
    )


def _hold(
    model: Any,
    params: Params,
    data: Data,
    schedule: Schedule,
    device: Device | None,
    kind: str,
) -> list[Held]:
    if model is None:
        return []
    if kind == "cpu":
        return [hold_on_cpu(model, params, data, schedule)]
    devices = [device] if device else [find_device(size) for size in SIZES]
    return [hold(model, params, data, schedule, each) for each in devices]


def _duration(
    model: Any,
    params: Params,
    data: Data,
    schedule: Schedule,
    held: list[Held],
    device: Device | None,
    kind: str,
    measured: list[Measurement],
) -> tuple[Duration | None, str]:
    """The duration on the device, on the largest where none is named; else why there is none."""
    if model is None:
        return None, "unknown: the base model's shape is"
    last = held[-1]
    if last.fit is None:
        return None, "none: it does not fit"
    layers, head = size_of(model)
    tokens = schedule.tokens_per_step or schedule.most_tokens_per_step
    work = Work(
        layer_weights=layers,
        head_weights=head,
        supervised_share=data.supervised_share,
        step_tokens=tokens / schedule.processes,
        compiled=params.train.compile,
        recomputed=last.fit.recomputed,
        dequantized=last.dequantized,
        float8=last.float8,
    )
    measured = [each for each in measured if each.on_cpu == (kind == "cpu")]
    hardware, memory = (device.kind, device.memory) if device else (None, None)
    if chosen := choose(measured, work, hardware, memory):
        return estimate_duration(chosen, work, data, schedule), ""
    where = "a CPU" if kind == "cpu" else hardware or "a GPU"
    why = f"unknown: nothing like it was measured on {where} (bench/results, metrics/cost.json)"
    if other := choose(measured, work, None, memory):
        seconds = estimate_duration(other, work, data, schedule).total_s
        about = f"about {spell(seconds)} " if seconds is not None else ""
        why += f"; elsewhere {about}by {other}"
    return None, why


def _warnings(
    params: Params,
    data: Data,
    schedule: Schedule,
    held: list[Held],
    disk: Disk,
    access: list[Access],
    device: Device | None,
) -> list[Finding]:
    found = check_schedule(params, data, schedule)
    if device and params.compute.device == "cpu":
        message = f"the run would not use {device.name}: set it to cuda or auto"
        found.append(Finding("compute.device", "cpu", message))
    if held and (device or all(each.problem for each in held)) and held[-1].problem:
        found.append(Finding("memory", None, held[-1].problem))
    if disk.short:
        found.append(Finding("disk", None, disk.short))
    found += [Finding("access", None, each.message) for each in access if each.state == "refused"]
    if schedule.steps is None:
        message = "without the number of rows neither steps nor time are known; --rows gives one"
        found.append(Finding("train.num_train_epochs", params.train.num_train_epochs, message))
    return found
