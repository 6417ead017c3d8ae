"""What a model takes of a device's memory, and how it is held so that it fits.

Whoever loads a base model asks here first: dequantised weights are the same numbers as 4-bit ones
in four times the memory, so they are given up where they do not fit.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.flat.heads import PIECE
from finetune.model.layers import layers_of
from finetune.model.load import resolve
from finetune.params import Compute, Quantization

RESERVE = 0.06  # of what is free: fragments, cuBLAS workspaces, the driver's own
BLOCK = 64  # weights that share a scale in 4 bits; 1 byte each with double quantisation, else 4
SMALLEST_EVALUATION = 512  # tokens of a pass; a longer example stands alone

log = logging.getLogger(__name__)


def fit_evaluation(
    config: Path,
    quantization: Quantization,
    compute: Compute,
    tokens: int,
    adapter: Path | None = None,
) -> tuple[Quantization, int]:
    """How to hold the model of `config` for passes without gradients, and their tokens.

    Both as asked for where that fits into what the device has left; else with 4-bit weights, then
    with smaller passes, on which no result depends. `config` is a folder with a config.json, and
    `adapter` that of the adapter that will be loaded, if any. Raises ValueError where nothing fits.
    On a CPU nothing is changed.
    """
    compute = resolve(compute)
    if compute.device == "cpu":
        return quantization, tokens
    available = available_bytes(torch.device("cuda", torch.cuda.current_device()))
    # Gigabytes where embedding and head are trained whole.
    available -= (
        sum(each.stat().st_size for each in adapter.glob("*.safetensors")) if adapter else 0
    )
    return choose_evaluation(skeleton(config), quantization, compute, tokens, available)


def choose_evaluation(
    model: nn.Module, quantization: Quantization, compute: Compute, tokens: int, available: int
) -> tuple[Quantization, int]:
    """As `fit_evaluation`, for a model without weights and `available` bytes."""
    kept = replace(quantization, dequantize=False)
    sizes = [tokens >> halving for halving in range(tokens.bit_length())]
    smaller = [size for size in sizes[1:] if size >= SMALLEST_EVALUATION]
    for way in [(quantization, tokens), (kept, tokens), *((kept, size) for size in smaller)]:
        need = evaluation_bytes(model, way[0], compute, way[1])
        if need <= available:
            if way != (quantization, tokens):
                log.info(f"memory: weights in 4 bits and passes of {way[1]} tokens, to fit")
            return way
    raise ValueError(
        f"the device has {available / 1e9:.1f} GB left, the smallest evaluation needs "
        f"{need / 1e9:.1f} GB: end what else runs on it, lower preprocess.max_length, "
        "or use a larger device"
    )


def evaluation_bytes(
    model: nn.Module, quantization: Quantization, compute: Compute, tokens: int
) -> int:
    """The peak of a pass without gradients, with the keys and values that generation keeps."""
    width = bytes_of(compute)
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    cached = 2 * size * (getattr(config, "num_key_value_heads", None) or heads)
    layers = layers_of(model)
    widest = max((_widths(layer) for layer in layers), default=0)
    head = model.get_output_embeddings().weight.shape
    return (
        weight_bytes(model, quantization, compute)
        + workspace_bytes(model, quantization, compute)
        + width * tokens * (widest + 4 * head[1] + cached * len(layers))
        + min(PIECE, tokens * head[0]) * (4 + width)
    )


def skeleton(config: Path) -> nn.Module:
    """The model without weights; `config` is a folder with a config.json."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config))


def release() -> None:
    """Give back what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """What this process may use of `device`, under its own cap if it has set one."""
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(device)
    return int((1 - RESERVE) * min(free, share * total))


def bytes_of(compute: Compute) -> int:
    """Of one number in the compute type."""
    return 4 if compute.dtype == "float32" else 2


def weight_bytes(model: nn.Module, quantization: Quantization, compute: Compute) -> int:
    """4 bits and a scale for each 64, or the compute type; all but linear layers in the latter."""
    width = bytes_of(compute)
    linear = sum(m.weight.numel() for _, m in quantised(model))
    stored = 0.5 + (1 if quantization.double_quantization else 4) / BLOCK
    rest = sum(p.numel() for p in model.parameters()) - linear
    return int(linear * (width if quantization.dequantize else stored)) + width * rest


def workspace_bytes(model: nn.Module, quantization: Quantization, compute: Compute) -> int:
    """The largest weight unpacked, and once more while it is used or transposed."""
    largest = max((m.weight.numel() for _, m in quantised(model)), default=0)
    return 2 * bytes_of(compute) * largest


def quantised(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer but the head, which stays in the compute type."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield name, module


def recompute_layers(model: nn.Module) -> bool:
    """Keep of each decoder layer its input alone, and compute the rest again in the backward pass.

    Safe to call again. Returns whether that draws random numbers again, which asks the host.
    """
    draws = _drops(model)
    for layer in layers_of(model):
        if not isinstance(layer.forward, Recomputed):
            layer.forward = Recomputed(layer, layer.forward, draws)
    return draws


class Recomputed:
    """A layer's forward whose activations are computed again in the backward pass.

    Around what is compiled, where transformers' own is inside of it: the same code then serves
    both, and torch 2.11 cannot compile dropout inside.
    """

    def __init__(self, layer: nn.Module, forward: Callable[..., torch.Tensor], draws: bool) -> None:
        self._layer, self._forward, self._draws = layer, forward, draws

    def __call__(self, *args: object, **kwargs: object) -> torch.Tensor:
        if not self._layer.training:
            return self._forward(*args, **kwargs)
        # Random states come from the host, which a captured pass cannot ask.
        options = {"use_reentrant": False, "preserve_rng_state": self._draws}
        return checkpoint(self._forward, *args, **options, **kwargs)


def _widths(layer: nn.Module) -> int:
    """Numbers that the linear layers of one layer read and write for a token."""
    found = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    return sum(m.in_features + m.out_features for m in found)


def _drops(model: nn.Module) -> bool:
    """Whether anything in `model` may draw what to leave out in training.

    A layer for it, or a rate in the model's configuration, which its functions read.
    """
    layers = (each.p for each in model.modules() if isinstance(each, nn.Dropout))
    config = model.config.get_text_config().to_dict()
    return any(layers) or any(rate for name, rate in config.items() if "drop" in name)
