"""The adapter's low-rank products, made once for the layers that read the same tensor.

Query, key and value read one tensor, gate and up another. Multiplied by the A matrices of all of
them at once, it is read once instead of three times, and one gradient comes back instead of three.
The scale is applied to the `r` numbers of a token, not to the thousands that come out of B.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from torch.nn.functional import linear

from finetune.model.probe import agree, short_losses

log = logging.getLogger(__name__)


def install(model: PeftModel) -> None:
    """Let the LoRA layers of `model` take their products from here, where they are the same ones.

    Losses of two short examples are compared before and after, with a B that is not zero. A layer
    that drops some of what it reads stands alone; one that is no plain pair of matrices (DoRA, an
    embedding, a parameter of three dimensions) stays peft's.
    """
    adapter = model.active_adapter
    groups = list(_groups(model, adapter))
    dtype = model.get_base_model().dtype
    with _visible(model):
        before = short_losses(model)
        for layers in groups:
            product = SharedProduct(layers, adapter)
            for number, layer in enumerate(layers):
                layer.lora_variant[adapter] = FromSharedProduct(product, number)
                # Autocast does it; a cast here would make another tensor for each layer.
                layer.cast_input_dtype_enabled = False
        try:
            same = agree(before, short_losses(model), dtype)
        except (RuntimeError, TypeError, ValueError):
            same = False
        if same:
            return
        for layer in (layer for layers in groups for layer in layers):
            del layer.lora_variant[adapter]
            layer.cast_input_dtype_enabled = True
    log.info("low-rank products as peft makes them: sharing them changes this model's losses")


def _groups(model: PeftModel, adapter: str) -> Iterator[list[LoraLayer]]:
    """The plain LoRA layers that share a product."""
    for layers in readers(model):
        plain = [layer for layer in layers if _is_plain(layer, adapter)]
        alone = any(not isinstance(layer.lora_dropout[adapter], nn.Identity) for layer in plain)
        yield from [[layer] for layer in plain] if alone else [plain] if plain else []


def _is_plain(layer: LoraLayer, adapter: str) -> bool:
    matrices = (layer.lora_A, layer.lora_B)
    return (
        all(adapter in each and type(each[adapter]) is nn.Linear for each in matrices)
        and adapter not in layer.lora_variant
        and not layer.use_dora.get(adapter)
    )


@contextmanager
def _visible(model: PeftModel) -> Iterator[None]:
    """Every B drawn at random, and zero or what it was again afterwards."""
    weights = [p for name, p in model.named_parameters() if "lora_B" in name and p.requires_grad]
    kept = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)


def readers(model: PeftModel) -> list[list[LoraLayer]]:
    """The LoRA layers in the order in which they run, those together that read the same tensor."""
    read: dict[tuple[int, int], list[LoraLayer]] = defaultdict(list)
    kept: list[torch.Tensor] = []  # while they are, no two of them have the same id

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        kept.append(args[0])
        read[id(args[0]), args[0].shape[-1]].append(layer)

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        short_losses(model)
    finally:
        for handle in handles:
            handle.remove()
    return list(read.values())


class SharedProduct:
    """One tensor [..., size], multiplied by the A matrices of all `layers` at once: [..., r]."""

    def __init__(self, layers: Sequence[LoraLayer], adapter: str) -> None:
        self._down = [layer.lora_A[adapter] for layer in layers]
        self._input: torch.Tensor | None = None
        self._results: Sequence[torch.Tensor] = ()

    def result(self, number: int, tensor: torch.Tensor) -> torch.Tensor:
        """The product of one layer's A and `tensor`. They ask in order; the first computes all."""
        if tensor is not self._input:
            self._input, self._results = tensor, self._multiply(tensor)
        result = self._results[number]
        if number == len(self._down) - 1:
            self._input, self._results = None, ()  # or they would live as long as the model
        return result

    def _multiply(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        weights = [layer.weight for layer in self._down]
        whole = weights[0] if len(weights) == 1 else torch.cat(weights)
        if not torch.is_autocast_enabled(tensor.device.type):
            tensor = tensor.to(whole.dtype)
        return linear(tensor, whole).split([len(weight) for weight in weights], dim=-1)


class FromSharedProduct(LoraVariant):
    """What peft calls in place of its own products of a layer."""

    def __init__(self, product: SharedProduct, number: int) -> None:
        self._product, self._number = product, number

    def forward(
        self,
        module: LoraLayer,
        active_adapter: str,
        x: torch.Tensor,
        result: torch.Tensor,
        **_: Any,
    ) -> torch.Tensor:
        """`result` [..., out] of the base layer, and what the adapter adds to it for `x`."""
        dropped = module.lora_dropout[active_adapter](x)
        low = self._product.result(self._number, dropped) * module.scaling[active_adapter]
        return result + module.lora_B[active_adapter](low)
