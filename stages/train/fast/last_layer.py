"""The last layer's feed-forward part runs only where its result is read.

With a short title behind a long question, 19 of 20 tokens have no label. The last layer must still
make every token's keys and values, but what its feed-forward part makes of a token without a
label is read by nobody. Leaving it out changes no loss and saves 1/40 of a 32-layer model's work.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from finetune.flat.attention import takes_flat
from finetune.flat.batches import MicroBatch, collate_flat
from finetune.flat.losses import token_nll
from finetune.model.layers import layers_of
from finetune.model.probe import agree, evaluating, make_examples

# The model's keyword argument, int64 [positions]: where the last hidden states are read.
ARGUMENT = "read_positions"


def install(model: PreTrainedModel) -> bool:
    """Make `model` heed `read_positions`; say whether it does.

    Not where the last layer has no part named `mlp` that turns one tensor into one of the same
    shape, token by token; nor where the losses of two short examples are not the same with it.
    """
    layers = layers_of(model)
    feed_forward = getattr(layers[-1], "mlp", None) if layers and takes_flat(model) else None
    if feed_forward is None or not _goes_token_by_token(feed_forward, model):
        return False
    batch = collate_flat(make_examples(model, supervised=2)).to(model.device)
    with evaluating(model):
        before = token_nll(model, batch)
        selection = Selection(layers[-1], feed_forward)
        if agree(before, token_nll(model, select(batch)), model.dtype):
            return True
    selection.remove()
    return False


def select(batch: MicroBatch) -> MicroBatch:
    """`batch` with the positions that its targets are predicted from."""
    return replace(batch, inputs=batch.inputs | {ARGUMENT: batch.inputs["logits_to_keep"]})


def _goes_token_by_token(feed_forward: nn.Module, model: PreTrainedModel) -> bool:
    size = model.config.get_text_config().hidden_size
    hidden = torch.linspace(-1, 1, 8 * size).reshape(1, 8, size)
    hidden = hidden.to(device=model.device, dtype=model.dtype)
    with torch.no_grad():
        whole = feed_forward(hidden)
        if not torch.is_tensor(whole) or whole.shape != hidden.shape:
            return False
        return torch.allclose(feed_forward(hidden[:, 2:5]), whole[:, 2:5], rtol=0.05, atol=0.05)


class Selection:
    """Hooks around the feed-forward part: take the rows that are read, put the results back."""

    def __init__(self, layer: nn.Module, feed_forward: nn.Module) -> None:
        self._positions: torch.Tensor | None = None
        self._whole: torch.Tensor | None = None
        self._handles = (
            layer.register_forward_pre_hook(self._note, with_kwargs=True),
            feed_forward.register_forward_pre_hook(self._take),
            feed_forward.register_forward_hook(self._put),
        )

    def remove(self) -> None:
        """Leave the layer as it was."""
        for handle in self._handles:
            handle.remove()

    def _note(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Kept until the next pass: checkpointing runs the feed-forward part again in between.

        The layer's input stands for the shape of its output: a number would be compiled in.
        """
        self._positions = kwargs.pop(ARGUMENT, None)
        self._whole = args[0]
        return args, kwargs

    def _take(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if self._positions is None:
            return args
        return (args[0].index_select(1, self._positions),)

    def _put(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if self._positions is None:
            return output
        return torch.zeros_like(self._whole).index_copy(1, self._positions, output)
