"""The adapter's low-rank products, made once for the layers that read the same tensor.

Query, key and value read one tensor, gate and up another. Multiplied by the A matrices of all of
them at once, it is read once instead of three times, and one gradient comes back instead of three.
The scale is applied to the `r` numbers of a token, not to the thousands that come out of B.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from torch.nn.functional import linear

from finetune.flat.heads import short_pass


def install(model: PeftModel) -> None:
    """Let every LoRA layer of `model` take its products from here; but for rounding, the same ones.

    A layer that reads a tensor of its own, or drops some of it, stands alone.
    """
    adapter = model.active_adapter
    for layers in readers(model):
        drops = not isinstance(layers[0].lora_dropout[adapter], nn.Identity)
        for group in [[layer] for layer in layers] if drops else [layers]:
            product = SharedProduct(group, adapter)
            for number, layer in enumerate(group):
                layer.lora_variant[adapter] = FromSharedProduct(product, number)
                # Autocast does it; a cast here would make another tensor for each layer.
                layer.cast_input_dtype_enabled = False


def readers(model: PeftModel) -> list[list[LoraLayer]]:
    """The LoRA layers in the order in which they run, those together that read the same tensor."""
    read: dict[int, list[LoraLayer]] = defaultdict(list)
    kept: list[torch.Tensor] = []  # while they are, no two of them have the same id

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        kept.append(args[0])
        read[id(args[0])].append(layer)

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        short_pass(model)
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
