"""The frozen weight and the adapter's B as one matrix, so that their sum is made inside a product.

    W x + s B A x = [W | s B] [x ; A x]

As two products and a sum, the thousands of outputs of a layer are written and read several times
more. The matrix of a layer is a little wider than W and takes its place; its last columns are
copied from B after each step (`refresh`). It pays where weights are plain (not in 4 bits) and
layers are compiled: the compiler then writes x into the wider tensor at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from torch.nn.functional import linear, pad

ALIGNMENT = 8  # numbers: rows of a product should begin at multiples of 16 bytes

Matrices = Sequence[torch.Tensor]


def joinable(layers: Sequence[LoraLayer]) -> bool:
    """Whether the base layers of `layers` hold plain weights."""
    return all(type(layer.get_base_layer()) is nn.Linear for layer in layers)


def join(layers: Sequence[LoraLayer], adapter: str) -> None:
    """Let `layers`, which read one tensor and drop none of it, return their sums from here."""
    group = Group(layers, adapter)
    for number, layer in enumerate(layers):
        layer.base_layer = Joined(group, number, layer.base_layer)
        layer.lora_variant[adapter] = Nothing()
        layer.cast_input_dtype_enabled = False


def refresh(model: nn.Module) -> None:
    """Copy every B to where it is read from. To be called whenever an adapter has changed."""
    joined = [module for module in model.modules() if isinstance(module, Joined)]
    if not joined:
        return
    with torch.no_grad():
        scaled = torch._foreach_mul([each.b for each in joined], [each.scale for each in joined])
        torch._foreach_copy_([each.border for each in joined], scaled)


class Shared:
    """What `count` layers make of the one tensor that they read; the first computes for all."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._input: torch.Tensor | None = None
        self._results: Matrices = ()

    def result(self, number: int, tensor: torch.Tensor) -> torch.Tensor:
        """What one layer makes of `tensor` [..., in]. They ask in order."""
        if tensor is not self._input:
            self._input, self._results = tensor, self._multiply(tensor)
        result = self._results[number]
        if number == self._count - 1:
            self._input, self._results = None, ()  # or they would live as long as the model
        return result

    def _multiply(self, tensor: torch.Tensor) -> Matrices:
        raise NotImplementedError


class Group(Shared):
    """Layers whose base and adapter are multiplied as one."""

    def __init__(self, layers: Sequence[LoraLayer], adapter: str) -> None:
        super().__init__(len(layers))
        self.down = [layer.lora_A[adapter] for layer in layers]
        self.up = [layer.lora_B[adapter] for layer in layers]
        self.scales = [layer.scaling[adapter] for layer in layers]
        self.ranks = [len(each.weight) for each in self.down]
        self.joined: list[Joined] = []

    def _multiply(self, tensor: torch.Tensor) -> Matrices:
        wholes = [each.whole for each in self.joined]
        adapters = [each.weight for each in (*self.down, *self.up)]
        flat = tensor.reshape(-1, tensor.shape[-1]).to(wholes[0].dtype)
        outputs = Sums.apply(flat, self.scales, *wholes, *adapters)
        return [output.reshape(*tensor.shape[:-1], output.shape[-1]) for output in outputs]


class Joined(nn.Module):
    """Stands for the base layer of a LoRA layer; its result has the adapter's part in it."""

    def __init__(self, group: Group, number: int, base: nn.Linear) -> None:
        super().__init__()
        self._group, self._number = group, number
        self.in_features, self.out_features = base.in_features, base.out_features
        rank = sum(group.ranks)
        width = base.in_features + rank + -rank % ALIGNMENT
        whole = base.weight.new_zeros(base.out_features, width)
        whole[:, : base.in_features] = base.weight
        # A parameter, as the base's weight was: DDP would send a buffer around at every step.
        self.whole = nn.Parameter(whole, requires_grad=False)
        self.bias = base.bias
        group.joined.append(self)

    @property
    def weight(self) -> torch.Tensor:
        """The base's weight [out, in]."""
        return self.whole[:, : self.in_features]

    @property
    def b(self) -> torch.Tensor:
        """The adapter's B [out, r]."""
        return self._group.up[self._number].weight

    @property
    def scale(self) -> float:
        """By which the adapter's part is multiplied."""
        return self._group.scales[self._number]

    @property
    def border(self) -> torch.Tensor:
        """Where B is read from, [out, r]."""
        start = self.in_features + sum(self._group.ranks[: self._number])
        return self.whole[:, start : start + self._group.ranks[self._number]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        output = self._group.result(self._number, x)
        return output if self.bias is None else output + self.bias


class Nothing(LoraVariant):
    """What peft adds to the result of a joined layer."""

    def forward(
        self,
        module: LoraLayer,
        active_adapter: str,
        x: torch.Tensor,
        result: torch.Tensor,
        **_: Any,
    ) -> torch.Tensor:
        """`result` as it is."""
        return result


class Sums(torch.autograd.Function):
    """x [rows, in]; of n layers each a whole matrix, an A and a B -> n results [rows, out]."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: torch.Tensor,
        scales: Sequence[float],
        *matrices: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        wholes, downs, _ = _thirds(matrices)
        wide = pad(x, (0, wholes[0].shape[1] - x.shape[1]))
        project(wide, _stack(downs, x.dtype))
        ctx.scales = scales
        ctx.save_for_backward(wide, *matrices)
        return tuple(linear(wide, whole) for whole in wholes)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *outer: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """The same products as without joining: each B's part, then each A's, then the input's."""
        wide, *matrices = ctx.saved_tensors
        wholes, downs, ups = _thirds(matrices)
        down, ranks = _stack(downs, wide.dtype), [len(each) for each in downs]
        size = down.shape[1]
        x, *lows = wide[:, : size + len(down)].split([size, *ranks], dim=1)
        of_low, of_ups = [], []
        for gradient, low, up, scale in zip(outer, lows, ups, ctx.scales, strict=True):
            of_low.append(gradient @ (up * scale).to(wide.dtype))
            of_ups.append((gradient.T @ low).to(up.dtype) * scale)
        joined = torch.cat(of_low, dim=1)
        of_downs = (joined.T @ x).to(downs[0].dtype).split(ranks)
        weights = [whole[:, :size] for whole in wholes]
        of_x = sum_of_products([*outer, joined], [*weights, down])
        return of_x, None, *[None] * len(wholes), *of_downs, *of_ups


def _thirds(matrices: Matrices) -> list[Matrices]:
    third = len(matrices) // 3
    return [matrices[start : start + third] for start in range(0, len(matrices), third)]


def _stack(matrices: Matrices, dtype: torch.dtype) -> torch.Tensor:
    return torch.cat(list(matrices)).to(dtype)


@torch.library.custom_op("finetune::project", mutates_args=("wide",))
def project(wide: torch.Tensor, down: torch.Tensor) -> None:
    """Multiply the first columns of `wide` [rows, columns] by `down` [n, size], and write behind.

    The n columns behind them, in place: the compiler would write all of `wide` again.
    """
    size = down.shape[1]
    wide[:, size : size + len(down)] = wide[:, :size] @ down.T


@torch.library.custom_op("finetune::sum_of_products", mutates_args=())
def sum_of_products(lefts: list[torch.Tensor], rights: list[torch.Tensor]) -> torch.Tensor:
    """The sum of all left [rows, n] @ right [n, columns], added up where it is made.

    An operation of its own, because the compiler would add each product in another place.
    """
    out = lefts[0] @ rights[0]
    for left, right in zip(lefts[1:], rights[1:], strict=True):
        out.addmm_(left, right)
    return out


@sum_of_products.register_fake
def _(lefts: list[torch.Tensor], rights: list[torch.Tensor]) -> torch.Tensor:
    return lefts[0].new_empty(lefts[0].shape[0], rights[0].shape[1])
