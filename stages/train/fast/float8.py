"""Products with the frozen weights in float8 (e4m3), adapters in bfloat16.

    y  = x W^T + (x A^T) (s B)^T      forward
    dx = g W   + (g s B) A            backward

Half of a step's arithmetic is x W^T, the other half g W; Hopper makes both twice as fast in e4m3.
Every row of x and g is divided by its largest magnitude / 448 before it is rounded, every row (for
g W: every column) of W once, after loading; the product is multiplied by both scales. A and B,
their gradients, attention, norms and the head stay in bfloat16 and float32. W is held in e4m3 in
both layouts, 2 bytes a weight, because tensor cores read both factors along the summed dimension.

Rounding x and g is written in plain operations, so that the compiler makes it part of the kernel
that makes the tensor (norm, SwiGLU). The layers that read one tensor (query, key, value; gate, up)
are one product. Outside of training the 4-bit layers are called: evaluation is in bfloat16.
"""

from collections.abc import Sequence
from types import MethodType

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from finetune.model.load import plain_weight
from finetune.params import Params
from stages.train.fast.low_rank import readers

LARGEST = 448.0  # of e4m3
SMALLEST = 1e-12  # of a row's magnitude: a row of zeros stays one
CAPABILITY = (9, 0)
SMALLEST_HIDDEN = 2048
MULTIPLE = 16  # both dimensions of a weight, as torch._scaled_mm asks


def install(model: PeftModel) -> int:
    """Let the LoRA layers of `model` train through float8; say how many do.

    A layer is left as it is where a dimension is no multiple of 16, where it has a bias, drops some
    of its input, or is no plain LoRA layer (DoRA).
    """
    adapter = model.active_adapter
    count = 0
    for layers in readers(model):
        fitting = [layer for layer in layers if _fits(layer, adapter)]
        if fitting:
            group = Group(fitting, adapter)
            for number, layer in enumerate(fitting):
                layer.float8_group, layer.float8_number = group, number
                layer.forward = MethodType(_forward, layer)
            count += len(fitting)
    return count


def why_not(params: Params, model: nn.Module) -> str | None:
    """Why products in float8 cannot be, or would gain nothing; None where they pay.

    `model` may be without weights.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < CAPABILITY:
        return "no GPU here multiplies in float8 (Hopper and later do)"
    if params.lora.dropout:
        return f"lora.dropout is {params.lora.dropout}, which drops other values for each layer"
    if params.lora.use_dora:
        return "lora.use_dora needs the whole weights"
    if not params.train.compile:
        return "train.compile is false, and rounding in kernels of its own costs what is gained"
    if (size := model.config.get_text_config().hidden_size) < SMALLEST_HIDDEN:
        return f"the model's products are too small to gain (hidden size {size})"
    return None


def _fits(layer: LoraLayer, adapter: str) -> bool:
    base = layer.get_base_layer()
    sizes = (getattr(base, "in_features", 1), getattr(base, "out_features", 1))
    return (
        isinstance(base, nn.Linear)
        and base.bias is None
        and not any(size % MULTIPLE for size in sizes)
        and isinstance(layer.lora_dropout[adapter], nn.Identity)
        and not layer.use_dora.get(adapter)
    )


class Group:
    """Layers that read the same tensor: their weights, below each other, in e4m3."""

    def __init__(self, layers: Sequence[LoraLayer], adapter: str) -> None:

        self.downs = [layer.lora_A[adapter] for layer in layers]
        self.ups = [layer.lora_B[adapter] for layer in layers]
        self.scales = [layer.scaling[adapter] for layer in layers]
        self.sizes = [layer.get_base_layer().out_features for layer in layers]
        weight = torch.cat([plain_weight(layer.get_base_layer()) for layer in layers])
        self.rows, self.row_scales = round_rows(weight)  # e4m3 [out, in], float32 [out, 1]
        self.columns, self.column_scales = round_rows(weight.T.contiguous())  # [in, out], [in, 1]
        self._input: torch.Tensor | None = None
        self._outputs: Sequence[torch.Tensor] = ()

    def output(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """What layer `number` makes of x [..., in]; the first that asks computes for all."""
        if x is not self._input:
            self._input, self._outputs = x, self._multiply(x)
        output = self._outputs[number]
        if number == len(self.sizes) - 1:
            self._input, self._outputs = None, ()  # or they would live as long as the model
        return output

    def _multiply(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        down = torch.cat([each.weight for each in self.downs]).to(x.dtype)
        up = torch.block_diag(
            *(each.weight * scale for each, scale in zip(self.ups, self.scales, strict=True))
        ).to(x.dtype)
        flat = x.reshape(-1, x.shape[-1])
        constant = flat.detach()
        weights = (self.rows, self.row_scales, self.columns, self.column_scales)
        y = lora(flat, *round_rows(constant), constant @ down.detach().T, down, up, *weights)
        return y.reshape(*x.shape[:-1], y.shape[-1]).split(self.sizes, dim=-1)


def _forward(layer: LoraLayer, x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    """The forward of a layer of a group.

    A method, the same function for all layers: of an object of its own the compiler would make
    code of its own for each layer.
    """
    if not layer.training:
        return type(layer).forward(layer, x, *args, **kwargs)
    return layer.float8_group.output(layer.float8_number, x)


def round_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, n] as e4m3 and, float32 [rows, 1], what each row must be multiplied by."""
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp(min=SMALLEST) / LARGEST
    return (x.float() / scale).to(torch.float8_e4m3fn), scale


@torch.library.custom_op("finetune::float8_product", mutates_args=())
def product(
    left: torch.Tensor,
    left_scale: torch.Tensor,
    right: torch.Tensor,
    right_scale: torch.Tensor,
    low: torch.Tensor,
    up: torch.Tensor,
) -> torch.Tensor:
    """left [n, k] @ right [m, k]^T times both scales + low [n, r] @ up [m, r]^T, bfloat16 [n, m].

    An operation of its own, because the compiler would write the two products to two places and
    read both again for their sum.
    """
    if not left.is_cuda:  # the same numbers, for tests
        exact = (left.float() * left_scale) @ (right.float() * right_scale).T
        return exact.to(low.dtype).addmm_(low, up.T)
    out = torch._scaled_mm(
        left,
        right.T,
        scale_a=left_scale,
        scale_b=right_scale.T,
        out_dtype=low.dtype,
        use_fast_accum=True,
    )
    return out.addmm_(low, up.T)


@product.register_fake
def _(
    left: torch.Tensor,
    left_scale: torch.Tensor,
    right: torch.Tensor,
    right_scale: torch.Tensor,
    low: torch.Tensor,
    up: torch.Tensor,
) -> torch.Tensor:
    return low.new_empty(left.shape[0], right.shape[0])


@torch.library.custom_op("finetune::float8_lora", mutates_args=())
def lora(
    x: torch.Tensor,
    rounded: torch.Tensor,
    scale: torch.Tensor,
    low: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    rows: torch.Tensor,
    row_scales: torch.Tensor,
    columns: torch.Tensor,
    column_scales: torch.Tensor,
) -> torch.Tensor:
    """x [tokens, in] (also `rounded`), low = x A^T, A [r, in], s B [out, r] -> y [tokens, out].

    Gradients of x, A and B; those by way of `rounded` and `low` are in that of x.
    """
    return product(rounded, scale, rows, row_scales, low, up)


@lora.register_fake
def _(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], rest[5].shape[0])


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: torch.Tensor) -> None:
    x, _, _, low, down, up, _, _, columns, column_scales = inputs
    ctx.save_for_backward(x, low, down, up, columns, column_scales)


def _gradients(
    ctx: torch.autograd.function.FunctionCtx, g: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    x, low, down, up, columns, column_scales = ctx.saved_tensors
    of_low = g @ up
    of_x = product(*round_rows(g), columns, column_scales, of_low, down.T)
    return of_x, None, None, None, of_low.T @ x, g.T @ low, None, None, None, None


lora.register_autograd(_gradients, setup_context=_keep)
