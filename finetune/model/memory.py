"""How much device memory a training step takes, and how to cut it so that it fits.

What may change is how a step is cut (tokens of a forward pass) and whether activations are kept or
made again. The examples of a step, and so the result, stay the same.
"""

import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from finetune.flat.heads import PIECE
from finetune.model.layers import layers_of
from finetune.params import Lora, Params

# Below this many tokens a forward pass is too small for the device (and dequantising 4-bit weights
# costs more than it): making activations again is cheaper from here on.
SMALLEST_PASS = 2048
RESERVE = 0.06  # of the device's memory: fragments, cuBLAS workspaces, the driver's own
BLOCK = 64  # weights that share a scale in 4 bits; 1 byte each with double quantisation, else 4
OPTIMIZER_BYTES = {"8bit": 2, "adafactor": 1, "sgd": 0, "adamw": 8}  # of state for a parameter
# Saved by a layer, as a multiple of what its linear layers read and write; measured on an H200.
KEPT_COMPILED, KEPT_EAGER = 1.1, 1.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """How a step is cut: tokens of a forward pass, and whether activations are made again."""

    tokens: int
    checkpointing: bool


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device at the peak of a training step."""

    weights: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def choices(params: Params, longest: int, share: int) -> list[Fit]:
    """The ways to cut a step, fastest first: smaller passes, then activations made again.

    The first is what params.yaml asks for, as far as a process's `share` of a step's examples can
    fill it; none is smaller than the `longest` example.
    """
    again = params.train.gradient_checkpointing
    budget = min(params.train.micro_batch_tokens, share * longest)
    budgets = [max(longest, budget >> halving) for halving in range(budget.bit_length())]
    budgets = list(dict.fromkeys(budgets))
    large = [each for each in budgets if each >= SMALLEST_PASS] or budgets[:1]
    return [Fit(each, False) for each in large if not again] + [Fit(each, True) for each in budgets]


def preflight(
    model: nn.Module, params: Params, options: Sequence[Fit], available: int
) -> tuple[Params, list[Fit]]:
    """Drop the options that cannot fit into `available` bytes by the estimate.

    Dequantised weights are given up first where they leave no room for a pass of a useful size.
    Raises ValueError, with the estimate, where nothing fits.
    """
    kept = [each for each in options if _fits(model, params, each, available)]
    worthwhile = any(not each.checkpointing for each in kept) or options[0].checkpointing
    if params.quantization.dequantize and not (kept and worthwhile):
        log.info("memory: dequantised weights leave too little room: kept in 4 bits")
        params = replace(params, quantization=replace(params.quantization, dequantize=False))
        return preflight(model, params, options, available)
    if not kept:
        need = estimate(model, params, options[-1])
        raise ValueError(
            f"the device has {available / 1e9:.1f} GB, the smallest step needs "
            f"{need.total / 1e9:.1f} GB ({_parts(need)}): lower preprocess.max_length or lora.r, "
            "or use a larger device"
        )
    if kept[0] != options[0]:
        log.info(f"memory: {_words(options[0])} would not fit, by estimate: {_words(kept[0])}")
    return params, kept


def settle(options: Sequence[Fit], probe: Callable[[Fit], None]) -> Fit:
    """The first option with which `probe` does not run out of memory.

    `probe` runs the longest batch, in training and in evaluation. Raises ValueError where every
    option fails.
    """
    for option in options:
        if not _runs_out(probe, option):
            return option
        log.warning(f"memory: out of memory at {_words(option)}")
    raise ValueError(
        f"the device's memory does not hold a step even at {_words(options[-1])}: lower "
        "preprocess.max_length or lora.r, set quantization.dequantize to false, or use a larger "
        "device"
    )


def next_smaller(options: Sequence[Fit], current: Fit) -> Fit:
    """What to fall back to when a step runs out of memory; ValueError where nothing is left."""
    rest = list(options)[list(options).index(current) + 1 :]
    if not rest:
        more = "set train.memory to auto, or lower train.micro_batch_tokens"
        if len(options) > 1:
            more = "lower preprocess.max_length or lora.r, or use a larger device"
        raise ValueError(f"out of memory at {_words(current)}: {more}")
    log.warning(f"memory: out of memory at {_words(current)}: going on at {_words(rest[0])}")
    return rest[0]


def release() -> None:
    """Give back what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """What this process may use of `device`, under its own cap if it has set one."""
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return int(min(free, share * total) - RESERVE * min(total, share * total))


def estimate(model: nn.Module, params: Params, fit: Fit) -> Estimate:
    """The peak of a training step on one device; `model` may be without weights (on `meta`).

    weights      4 bits and a scale for each 64, or the compute type; all else in the compute type
    adapter      r (inputs + outputs) of each trained layer: float32, its gradient too
    optimizer    two states for a trained weight
    activations  what the layers' linear parts read and write, for each token; with checkpointing
                 the input of each layer, and one layer whole
    logits       one piece in float32 with its gradient, and the hidden states' gradient
    workspace    the largest weight dequantised, twice
    """
    width = 4 if params.compute.dtype == "float32" else 2
    trained = _trained_weights(model, params.lora)
    per_layer = [_layer_floats(layer, params.lora) for layer in layers_of(model)]
    kept = KEPT_COMPILED if params.train.compile else KEPT_EAGER
    hidden = _hidden_size(model)
    if fit.checkpointing:
        floats = hidden * len(per_layer) + kept * max(per_layer, default=0)
    else:
        floats = kept * sum(per_layer)
    linear = _linear_weights(model)
    stored = 0.5 + (1 if params.quantization.double_quantization else 4) / BLOCK
    return Estimate(
        weights=int(linear * (width if params.quantization.dequantize else stored))
        + width * (sum(p.numel() for p in model.parameters()) - linear),
        adapter=2 * 4 * trained,
        optimizer=_state_bytes(params.train.optim) * trained,
        activations=int(width * fit.tokens * floats),
        logits=min(PIECE, fit.tokens * _words_of_head(model)) * (4 + 2 * width)
        + 2 * width * fit.tokens * hidden,
        workspace=2 * width * max((m.weight.numel() for _, m in _quantised(model)), default=0),
    )


def checkpoint_layers(model: nn.Module) -> bool:
    """Keep of each decoder layer its input alone, and make the rest again. Safe to call again.

    Returns whether that draws random numbers again, for which the host is asked.
    """
    draws = _drops(model)
    for layer in layers_of(model):
        if not isinstance(layer.forward, Checkpointed):
            layer.forward = Checkpointed(layer, layer.forward, draws)
    return draws


def _drops(model: nn.Module) -> bool:
    """Whether anything in `model` may draw what to leave out in training.

    A layer for it, or a rate in the model's configuration, which its functions read.
    """
    layers = (each.p for each in model.modules() if isinstance(each, nn.Dropout))
    config = model.config.get_text_config().to_dict()
    return any(layers) or any(rate for name, rate in config.items() if "drop" in name)


class Checkpointed:
    """A layer's forward whose activations are made again in the backward pass.

    Around what is compiled, where transformers' own is inside of it: the same code then serves
    both, and torch 2.11 cannot compile dropout inside.
    """

    def __init__(self, layer: nn.Module, forward: Callable[..., torch.Tensor], draws: bool) -> None:
        self._layer, self._forward, self._draws = layer, forward, draws

    def __call__(self, *args: object, **kwargs: object) -> torch.Tensor:
        if not self._layer.training:
            return self._forward(*args, **kwargs)
        # Random states come from the host, which a recorded pass cannot ask.
        options = {"use_reentrant": False, "preserve_rng_state": self._draws}
        return checkpoint(self._forward, *args, **options, **kwargs)


def _runs_out(probe: Callable[[Fit], None], option: Fit) -> bool:
    try:
        probe(option)
    except torch.OutOfMemoryError:
        failed = True
    else:
        failed = False
    # Outside of the except clause: there the traceback would keep every tensor alive.
    if failed:
        release()
    return failed


def _fits(model: nn.Module, params: Params, option: Fit, available: int) -> bool:
    return estimate(model, params, option).total <= available


def _words(fit: Fit) -> str:
    return f"{fit.tokens} tokens{' with checkpointing' if fit.checkpointing else ''}"


def _parts(estimate: Estimate) -> str:
    return ", ".join(f"{name} {size / 1e9:.1f}" for name, size in asdict(estimate).items())


def _state_bytes(optim: str) -> int:
    return next((size for name, size in OPTIMIZER_BYTES.items() if name in optim), 8)


def _quantised(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer but the head, which stays in the compute type."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield name, module


def _linear_weights(model: nn.Module) -> int:
    return sum(m.in_features * m.out_features for _, m in _quantised(model))


def _is_trained(name: str, lora: Lora) -> bool:
    targets = lora.target_modules
    if targets == "all-linear":
        return True
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _trained_weights(model: nn.Module, lora: Lora) -> int:
    return sum(
        lora.r * (m.in_features + m.out_features)
        for name, m in _quantised(model)
        if _is_trained(name, lora)
    )


def _layer_floats(layer: nn.Module, lora: Lora) -> float:
    """Numbers that one layer keeps for each token: what its linear layers write and read.

    Layers of one parent with the same input width mostly read the same tensor (query, key and
    value; gate and up). What a frozen layer reads need not be kept.
    """
    found = [(name, m) for name, m in layer.named_modules() if isinstance(m, nn.Linear)]
    written = sum(m.out_features for _, m in found)
    read = {(n.rpartition(".")[0], m.in_features) for n, m in found if _is_trained(n, lora)}
    dropped = sum(m.in_features for n, m in found if _is_trained(n, lora)) if lora.dropout else 0
    norms = 2 * math.ceil(min((m.in_features for _, m in found), default=0))
    return written + sum(size for _, size in read) + norms + dropped


def _hidden_size(model: nn.Module) -> int:
    return model.get_output_embeddings().weight.shape[1]


def _words_of_head(model: nn.Module) -> int:
    return model.get_output_embeddings().weight.shape[0]
