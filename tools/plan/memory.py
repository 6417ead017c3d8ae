"""What a step takes of a device's memory: the estimate that the run itself goes by.

The functions are those of `train.memory: auto` and of evaluation. Only the device is another: one
that is named, empty but for what every process reserves.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from torch import nn

from finetune.model.memory import RESERVE, choose_evaluation, quantised
from finetune.params import Compute, Params
from stages.train.fast.fitting import Estimate, Fit, estimate, keep_fitting, list_fits
from stages.train.fast.float8 import CAPABILITY
from tools.plan.data import Data
from tools.plan.devices import Device
from tools.plan.idle import why_no_float8
from tools.plan.schedule import Schedule


@dataclass(frozen=True)
class Held:
    """How a run is held on a device. `fit` is None where nothing fits, and `problem` says why."""

    device: str
    available: int  # bytes, without the reserve
    reserve: int
    fit: Fit | None = None
    parts: Estimate | None = None
    dequantized: bool = False
    given_up: bool = False  # dequantised weights were asked for, and leave too little room
    float8: bool = False
    evaluation: str = ""
    problem: str | None = None

    @property
    def total(self) -> int | None:
        """Bytes at the peak, by estimate, without the reserve."""
        return self.parts.total if self.parts else None

    def as_dict(self) -> dict:
        """For JSON: the parts in bytes."""
        return asdict(self) | {"total": self.total}


def size_of(model: nn.Module) -> tuple[int, int]:
    """Weights of the decoder's linear layers, and of the head."""
    head = model.get_output_embeddings().weight
    return sum(module.weight.numel() for _, module in quantised(model)), head.numel()


def on_gpu(params: Params) -> Params:
    """`params` with `auto` values as a GPU of today settles them."""
    dtype = "bfloat16" if params.compute.dtype == "auto" else params.compute.dtype
    return replace(params, compute=replace(params.compute, device="cuda", dtype=dtype))


def hold(model: nn.Module, params: Params, data: Data, schedule: Schedule, device: Device) -> Held:
    """How `params` are held on `device`, as `plan_memory` decides; `model` has no weights."""
    reserve = int(RESERVE * device.memory)
    available = device.available or device.memory - reserve
    held = Held(device.name, available, reserve)
    longest = data.train.longest if data.train else params.preprocess.max_length
    shards = schedule.processes if schedule.sharded else 1
    wanted = params.quantization.dequantize
    params = _settle_matmul(on_gpu(params), model, device)
    before = params
    fits = list_fits(params, longest, schedule.examples // schedule.processes)
    with _silent():
        try:
            if params.train.memory == "auto":
                params, fits = keep_fitting(model, params, fits, available, shards)
        except ValueError as error:
            return replace(held, problem=str(error))
        parts = estimate(model, params, fits[0], shards)
        evaluation, problem = _evaluation(model, params, available, wanted)
    if parts.total > available:
        problem = (
            f"a step needs {parts.total / 1e9:.1f} GB, {device.name} has {available / 1e9:.1f}: "
            "set train.memory to auto, or lower train.micro_batch_tokens"
        )
    return replace(
        held,
        fit=fits[0],
        parts=parts,
        dequantized=params.quantization.dequantize,
        given_up=before.quantization.dequantize and not params.quantization.dequantize,
        float8=params.compute.matmul == "float8",
        evaluation=evaluation,
        problem=problem,
    )


def hold_on_cpu(model: nn.Module, params: Params, data: Data, schedule: Schedule) -> Held:
    """The same sum in a machine's own memory, which the run itself does not make."""
    dtype = "float32" if params.compute.dtype == "auto" else params.compute.dtype
    params = replace(params, compute=Compute("cpu", dtype, None, "bfloat16"))
    longest = data.train.longest if data.train else params.preprocess.max_length
    fit = list_fits(params, longest, schedule.examples // schedule.processes)[0]
    parts = estimate(model, params, fit)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Held("cpu", memory, 0, fit, parts, params.quantization.dequantize)


def _settle_matmul(params: Params, model: nn.Module, device: Device) -> Params:
    """As fitting._settle_matmul, for a device that need not be here."""
    if params.compute.matmul != "float8":
        return params
    older = device.capability is not None and device.capability < CAPABILITY
    if older or why_no_float8(params, model):
        return replace(params, compute=replace(params.compute, matmul="bfloat16"))
    return replace(params, quantization=replace(params.quantization, dequantize=False))


def _evaluation(
    model: nn.Module, params: Params, available: int, dequantize: bool
) -> tuple[str, str | None]:
    """How baseline and evaluate hold the model, and why they cannot."""
    asked = replace(params.quantization, dequantize=dequantize)
    tokens = params.evaluate.micro_batch_tokens
    try:
        found, tokens = choose_evaluation(model, asked, params.compute, tokens, available)
    except ValueError as error:
        return "", f"baseline and evaluate do not fit: {error}"
    way = "dequantised" if found.dequantize else "in 4 bits"
    return f"{way}, passes of {tokens:,} tokens", None


@contextmanager
def _silent() -> Iterator[None]:
    """What the run would log on the way is in the plan already."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
