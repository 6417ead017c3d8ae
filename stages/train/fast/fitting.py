"""How a step is cut so that memory holds it: by estimate, by trying, and again when it runs out.

What may change is the number of tokens in a forward pass, and whether activations are kept or
recomputed. The examples of a step, and so the result, stay the same.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from finetune.flat.heads import PIECE
from finetune.model import memory
from finetune.model.layers import layers_of
from finetune.model.targets import find_saved, is_tied, is_trained
from finetune.params import Lora, Params, Quantization
from stages.train.fast import float8
from stages.train.steps import Plan

# Below this many tokens a forward pass is too small for the device (and dequantising 4-bit weights
# costs more than it): recomputing activations is cheaper from here on.
SMALLEST_PASS = 2048
OPTIMIZER_BYTES = {"8bit": 2, "adafactor": 1, "sgd": 0, "adamw": 8}  # of state for a parameter
# Saved by a layer, as a multiple of what its linear layers read and write; measured on an H200.
KEPT_COMPILED, KEPT_EAGER = 1.1, 1.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """How a step is cut: tokens of a forward pass, and whether activations are recomputed."""

    tokens: int
    recomputed: bool

    def __str__(self) -> str:
        return f"{self.tokens} tokens{', recomputed' if self.recomputed else ''}"


@dataclass(frozen=True)
class Memory:
    """What may fit, fastest first, with weights held as `quantization` says.

    `estimated` bytes are those of the first fit, `available` those left on the device before
    anything is loaded. None on a CPU.
    """

    quantization: Quantization
    fits: list[Fit]
    estimated: int | None = None
    available: int | None = None
    float8: bool = False


def plan_memory(params: Params, base: Path, plan: Plan, device: torch.device) -> Memory:
    """What may be tried, and 4-bit weights where dequantised ones leave no room.

    Raises ValueError where nothing fits. With train.memory `fixed`, what params.yaml says is all.
    """
    fits = list_fits(params, int(plan.lengths.max()), plan.share)
    if params.train.memory == "fixed":
        fits = fits[:1]
    if device.type != "cuda":
        return Memory(params.quantization, fits)
    shards = plan.processes if os.environ.get("ACCELERATE_USE_FSDP") == "true" else 1
    model, available = memory.skeleton(base), memory.available_bytes(device)
    params = _settle_matmul(params, model)
    if params.train.memory == "auto":
        params, fits = keep_fitting(model, params, fits, available, shards)
    estimated = estimate(model, params, fits[0], shards).total
    log.info(f"memory: {estimated / 1e9:.1f} GB by estimate at {fits[0]}")
    in_float8 = params.compute.matmul == "float8"
    return Memory(params.quantization, fits, estimated, available, in_float8)


def _settle_matmul(params: Params, model: nn.Module) -> Params:
    """Products in bfloat16 where float8 cannot be or would gain nothing; 4-bit weights beside it,
    for evaluation."""
    if params.compute.matmul != "float8":
        return params
    if reason := float8.why_not(params, model):
        log.info(f"compute.matmul: bfloat16 instead of float8: {reason}")
        return replace(params, compute=replace(params.compute, matmul="bfloat16"))
    return replace(params, quantization=replace(params.quantization, dequantize=False))


def list_fits(params: Params, longest: int, share: int) -> list[Fit]:
    """All fits, fastest first: smaller passes, then recomputed activations.

    The first is what params.yaml asks for, as far as a process's `share` of a step's examples can
    fill it; none is smaller than the `longest` example.
    """
    recomputed = params.train.gradient_checkpointing
    largest = min(params.train.micro_batch_tokens, share * longest)
    sizes = [max(longest, largest >> halving) for halving in range(largest.bit_length())]
    sizes = list(dict.fromkeys(sizes))
    large = [each for each in sizes if each >= SMALLEST_PASS] or sizes[:1]
    plain = [] if recomputed else [Fit(each, False) for each in large]
    return plain + [Fit(each, True) for each in sizes]


def keep_fitting(
    model: nn.Module, params: Params, fits: Sequence[Fit], available: int, shards: int = 1
) -> tuple[Params, list[Fit]]:
    """Of `fits`, those that `available` bytes can hold by the estimate.

    Dequantised weights are given up first where they leave no room for a pass of a useful size.
    Raises ValueError, with the estimate, where nothing fits.
    """
    kept = [fit for fit in fits if estimate(model, params, fit, shards).total <= available]
    worthwhile = any(not fit.recomputed for fit in kept) or fits[0].recomputed
    if params.quantization.dequantize and not (kept and worthwhile):
        log.info("memory: dequantised weights leave too little room: kept in 4 bits")
        params = replace(params, quantization=replace(params.quantization, dequantize=False))
        return keep_fitting(model, params, fits, available, shards)
    if params.compute.matmul == "float8" and not (kept and worthwhile):
        log.info("memory: weights in float8 leave too little room: products in bfloat16")
        params = replace(params, compute=replace(params.compute, matmul="bfloat16"))
        return keep_fitting(model, params, fits, available, shards)
    if not kept:
        need = estimate(model, params, fits[-1], shards)
        raise ValueError(
            f"the device has {available / 1e9:.1f} GB, the smallest step needs "
            f"{need.total / 1e9:.1f} GB ({need}): lower preprocess.max_length or lora.r, "
            "or use a larger device"
        )
    if kept[0] != fits[0]:
        log.info(f"memory: {fits[0]} would not fit, by estimate: {kept[0]}")
    return params, kept


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device at the peak of a training step; `loading` where that takes more."""

    weights: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    loading: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return max(self.loading, sum(self._parts().values()))

    def _parts(self) -> dict[str, int]:
        return {name: size for name, size in asdict(self).items() if name != "loading"}

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self._parts().items())


def estimate(model: nn.Module, params: Params, fit: Fit, shards: int = 1) -> Estimate:
    """The peak of a training step on one device; `model` may be without weights (on `meta`).

    weights      as `memory.weight_bytes` has them
    adapter      r (inputs + outputs) of each trained layer, and the modules that are trained whole:
                 float32, the gradient too
    optimizer    two states for a trained weight, of an embedding always in float32
    activations  what the layers' linear parts read and write, for each token; recomputed, the input
                 of each layer, and one layer whole
    logits       one piece in float32 with its gradient, and the hidden states' gradient
    workspace    the largest weight dequantised, twice; of `shards` (FSDP), also two whole layers;
                 where a module is trained whole, its gradient of one pass, a rounded copy and a sum
    loading      under FSDP, each process loads all weights before it keeps its share
    """
    width, layers = memory.bytes_of(params.compute), layers_of(model)
    embedding, head = whole_weights(model, params.lora)
    trained = _trained_weights(model, params.lora) + embedding + head
    floats = _activation_floats(model, params, fit)
    words, hidden = model.get_output_embeddings().weight.shape
    weights = memory.weight_bytes(model, params.quantization, params.compute)
    if params.compute.matmul == "float8":
        weights += 2 * sum(m.weight.numel() for _, m in memory.quantised(model))
    gathered = 2 * weights // max(1, len(layers)) if shards > 1 else 0
    return Estimate(
        weights=weights // shards,
        adapter=2 * 4 * trained // shards,
        optimizer=_state_bytes(params.train.optim, trained, embedding) // shards,
        activations=int(width * fit.tokens * floats),
        logits=min(PIECE, fit.tokens * words) * (4 + 2 * width) + 2 * width * fit.tokens * hidden,
        workspace=memory.workspace_bytes(model, params.quantization, params.compute)
        + gathered
        + (4 + 2 * width) * max(embedding, head),
        loading=weights if shards > 1 else 0,
    )


class Fitting:
    """The fit in use: chosen by trying the longest batches, and made smaller where memory ends.

    `apply` is told of each change, with gradients and captured passes gone. With several
    processes, what fails on one fails on all; `world_size` counts them.
    """

    def __init__(self, fits: Sequence[Fit], apply: Callable[[Fit], None], world_size: int) -> None:
        self.fits, self.fit = list(fits), fits[0]
        self._apply, self._world_size = apply, world_size

    def use(self, fit: Fit) -> None:
        """Cut steps as `fit` says from now on."""
        self.fit = fit
        self._apply(fit)

    def describe(self, memory: Memory) -> dict[str, bool | int]:
        """What train.memory has come to, by the names in params.yaml."""
        return {
            "dequantize": memory.quantization.dequantize,
            "micro_batch_tokens": self.fit.tokens,
            "gradient_checkpointing": self.fit.recomputed,
        }

    def choose(self, probe: Callable[[Fit], None], device: torch.device) -> None:
        """Use the first fit with which `probe` does not run out of memory, on any process.

        `probe` runs the longest batch, in training and in evaluation. Raises ValueError where
        every fit fails.
        """
        if len(self.fits) == 1:
            return
        for fit in self.fits:
            self.use(fit)
            failed = _any_process(_runs_out(probe, fit), device)
            self.use(fit)  # what the probe has left goes
            if not failed:
                return
            log.warning(f"memory: out of memory at {fit}")
        raise ValueError(
            f"the device's memory does not hold a step even at {self.fits[-1]}: lower "
            "preprocess.max_length or lora.r, set quantization.dequantize to false, or use a "
            "larger device"
        )

    def attempt(self, run: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        """What `run` returns; None where it ran out of memory, with a smaller fit in use.

        Raises ValueError where none is left, or with several processes: alone, a process cannot
        cut its step differently, because the others would wait for it.
        """
        try:
            return run()
        except torch.OutOfMemoryError as error:
            if self._world_size > 1:
                raise ValueError(
                    f"out of memory at {self.fit} on one of {self._world_size} processes: lower "
                    f"train.micro_batch_tokens ({error})"
                ) from None
        # Outside of the except clause: there the traceback would keep every tensor alive.
        self.use(self._next_smaller())
        return None

    def _next_smaller(self) -> Fit:
        rest = self.fits[self.fits.index(self.fit) + 1 :]
        if not rest:
            more = "set train.memory to auto, or lower train.micro_batch_tokens"
            if len(self.fits) > 1:
                more = "lower preprocess.max_length or lora.r, or use a larger device"
            raise ValueError(f"out of memory at {self.fit}: {more}")
        log.warning(f"memory: out of memory at {self.fit}: going on at {rest[0]}")
        return rest[0]


def _runs_out(probe: Callable[[Fit], None], fit: Fit) -> bool:
    try:
        probe(fit)
    except torch.OutOfMemoryError:
        return True
    return False


def _any_process(failed: bool, device: torch.device) -> bool:
    if not dist.is_initialized():
        return failed
    flag = torch.tensor(float(failed), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _state_bytes(optim: str, trained: int, embedding: int) -> int:
    """Trainer keeps the states of the `embedding` among the `trained` weights in 32 bits."""
    size = next((size for name, size in OPTIMIZER_BYTES.items() if name in optim), 8)
    return size * trained + (8 - size) * embedding * ("8bit" in optim)


def _activation_floats(model: nn.Module, params: Params, fit: Fit) -> float:
    """Numbers kept for a token until the backward pass."""
    kept = KEPT_COMPILED if params.train.compile else KEPT_EAGER
    names = {id(module): name for name, module in model.named_modules()}
    layers = [_layer_floats(names[id(layer)], layer, params.lora) for layer in layers_of(model)]
    if not fit.recomputed:
        return kept * sum(layers)
    hidden = model.get_output_embeddings().weight.shape[1]
    return hidden * len(layers) + kept * max(layers, default=0)


def _trained_weights(model: nn.Module, lora: Lora) -> int:
    return sum(
        lora.r * (m.in_features + m.out_features)
        for name, m in memory.quantised(model)
        if is_trained(name, lora)
    )


def whole_weights(model: nn.Module, lora: Lora) -> tuple[int, int]:
    """Weights of the embedding and of the head, where they are trained whole.

    A head that is the embedding counts there.
    """
    saved = [model.get_submodule(name) for name in find_saved(model, lora)]
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    sizes = [
        sum(p.numel() for p in each.parameters()) if any(each is m for m in saved) else 0
        for each in (embedding, head)
    ]
    return sizes[0], 0 if is_tied(model) else sizes[1]


def _layer_floats(prefix: str, layer: nn.Module, lora: Lora) -> float:
    """Numbers that the layer `prefix` keeps for each token: what its linear layers write and read.

    Layers of one parent with the same input width mostly read the same tensor (query, key and
    value; gate and up). What a frozen layer reads need not be kept.
    """
    named = layer.named_modules(prefix=prefix)
    found = [(name, m) for name, m in named if isinstance(m, nn.Linear)]
    written = sum(m.out_features for _, m in found)
    read = {(n.rpartition(".")[0], m.in_features) for n, m in found if is_trained(n, lora)}
    dropped = sum(m.in_features for n, m in found if is_trained(n, lora)) if lora.dropout else 0
    norms = 2 * math.ceil(min((m.in_features for _, m in found), default=0))
    return written + sum(size for _, size in read) + norms + dropped
