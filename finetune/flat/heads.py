"""A language-model head that returns losses instead of logits.

The logits of 16,384 tokens over 131,072 words take 4 GB in bfloat16 and 17 GB with the float32
copies that a plain cross-entropy makes. While the head is frozen, its weight needs no gradient, and
that of the hidden states is known as soon as a piece of the logits is. Where the head is trained
(lora.modules_to_save), each piece is made again in the backward pass. No more than one piece ever
exists.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

# Logits that exist at a time: 512 MB in float32.
PIECE = 2**27

Picked = tuple[torch.Tensor, torch.Tensor]
PieceLoss = Callable[[torch.Tensor, torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor | None]]


def install(model: PreTrainedModel) -> bool:
    """Give `model` a LossHead where that computes the same; say whether it did.

    Not where the head has a bias, is trained or is no plain linear layer, and not where the model
    does something to the logits after the head (soft caps, scaling).
    """
    head = model.get_output_embeddings()
    if isinstance(head, LossHead):
        return True
    if type(head) is not nn.Linear or head.bias is not None or head.weight.requires_grad:
        return False
    if not _returns_logits_of(model, head):
        return False
    model.set_output_embeddings(LossHead(head))
    return True


def find_head(model: nn.Module) -> nn.Module:
    """The head of `model` that is in use: the trained copy, where the adapter has one."""
    head = model.get_output_embeddings()
    if not isinstance(head, ModulesToSaveWrapper):
        return head
    if head.disable_adapters or not head.active_adapters:
        return head.original_module
    return head.modules_to_save[head.active_adapters[0]]


def _returns_logits_of(model: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether the model's logits are exactly what comes out of its head."""
    seen: list[torch.Tensor] = []
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    try:
        logits = short_pass(model)
    finally:
        handle.remove()
    return len(seen) == 1 and torch.equal(seen[0], logits)


def short_pass(model: nn.Module) -> torch.Tensor:
    """The logits of four tokens, [1, 4, words]: for hooks that look at what calls what."""
    was_training = model.training
    try:
        with torch.no_grad():
            ids = torch.arange(4, device=model.device)[None]
            return model.eval()(input_ids=ids, use_cache=False).logits
    finally:
        model.train(was_training)


class LossHead(nn.Linear):
    """A linear layer that, inside `asked_for`, returns the loss of each target.

    Its only parameter is the weight of the layer that it replaces, under the same name.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight = head.weight
        self._asked: tuple[torch.Tensor, Picked | None] | None = None
        self._loss: PieceLoss = piece_nll

    def compile(self) -> None:
        """Turn the steps between the two products of a piece into one or two kernels."""
        self._loss = torch.compile(piece_nll, dynamic=True)

    @contextmanager
    def asked_for(self, targets: torch.Tensor, picked: Picked | None = None) -> Iterator[None]:
        """Within, the model's `logits` are the losses of `targets`, float32 [targets].

        `picked` are the rows and columns of the hidden states that predict the targets; without
        it the hidden states are one row, as long as `targets`.
        """
        self._asked = targets, picked
        try:
            yield
        finally:
            self._asked = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [rows, positions, words], or the losses that were asked for."""
        if self._asked is None:
            return super().forward(hidden)
        targets, picked = self._asked
        chosen = hidden[0] if picked is None else hidden[picked]
        if self.weight.requires_grad:
            return trained_nll(chosen, self.weight, targets, self._loss)
        return linear_nll(chosen, self.weight, targets, self._loss)


def piece_nll(
    logits: torch.Tensor, targets: torch.Tensor, wanted: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Losses [rows] of one piece and, where wanted, their gradient by the logits [rows, words]."""
    counted = targets >= 0
    at = targets.clamp(min=0)[:, None]
    exact = logits.float()
    log_sum = exact.logsumexp(-1, keepdim=True)
    losses = (log_sum - exact.gather(1, at))[:, 0] * counted
    if not wanted:
        return losses, None
    words = torch.arange(logits.shape[1], device=logits.device)
    change = ((exact - log_sum).exp() - (words == at).float()) * counted[:, None]
    return losses, change.to(logits.dtype)


def linear_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    piece_loss: PieceLoss = piece_nll,
) -> torch.Tensor:
    """-log softmax(hidden @ weight.T)[target] of each row, in nats, float32 [rows].

    hidden [rows, size], weight [words, size] (gets no gradient), targets int64 [rows]. A target
    below 0 costs nothing.
    """
    return _LinearNll.apply(hidden.to(weight.dtype), weight, targets, piece_loss)


class _LinearNll(torch.autograd.Function):
    """The gradient of the hidden states is made together with the losses, and only scaled later."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        piece_loss: PieceLoss,
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if wanted else None
        for piece in _pieces(hidden, weight):
            logits = hidden[piece] @ weight.T
            losses[piece], change = piece_loss(logits, targets[piece], wanted)
            if wanted:
                torch.mm(change, weight, out=gradient[piece])
        ctx.gradient = gradient
        return losses

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, outer: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, None, None]:
        if ctx.gradient is None:
            return None, None, None, None
        return ctx.gradient * outer[:, None].to(ctx.gradient.dtype), None, None, None


def trained_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    piece_loss: PieceLoss = piece_nll,
) -> torch.Tensor:
    """As `linear_nll`, for a weight that gets a gradient.

    `weight` is in float32; under autocast the products are in its type, as a plain layer's are.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _TrainedNll.apply(hidden.to(dtype), weight, targets, piece_loss)


class _TrainedNll(torch.autograd.Function):
    """Nothing is kept of a piece: the weight's gradient sums rows by their outer gradients, which
    are known in the backward pass only.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        piece_loss: PieceLoss,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.piece_loss, factor = piece_loss, weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for piece in _pieces(hidden, weight):
            losses[piece], _ = piece_loss(hidden[piece] @ factor.T, targets[piece], False)
        return losses

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, outer: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden, weight, targets = ctx.saved_tensors
        factor = weight.to(hidden.dtype)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for piece in _pieces(hidden, weight):
            rows = hidden[piece]
            _, change = ctx.piece_loss(rows @ factor.T, targets[piece], True)
            change = change * outer[piece, None].to(change.dtype)
            torch.mm(change, factor, out=of_hidden[piece])
            of_weight += change.T @ rows
        return of_hidden, of_weight, None, None


def _pieces(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    """Rows of `hidden` whose logits are one piece."""
    step = max(1, PIECE // len(weight))
    return (slice(start, start + step) for start in range(0, len(hidden), step))
