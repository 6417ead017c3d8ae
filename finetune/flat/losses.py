"""The loss of a micro-batch, token by token."""

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from finetune.flat.batches import MicroBatch
from finetune.flat.heads import LossHead, find_head


def token_nll(model: nn.Module, batch: MicroBatch) -> torch.Tensor:
    """The negative log likelihood of each supervised token, float32 [supervised tokens], in nats.

    `batch` must be on the model's device. A target below 0 costs nothing.
    """
    base = getattr(model, "module", model)
    head = find_head(base)
    with _half_precision(base, batch):
        if isinstance(head, LossHead):
            with head.asked_for(batch.targets, None if _in_order(batch) else batch.at):
                return model(**batch.inputs, use_cache=False).logits
        logits = model(**batch.inputs, use_cache=False).logits
    chosen = logits[0] if _in_order(batch) else logits[batch.at]
    return cross_entropy(chosen.float(), batch.targets, reduction="none", ignore_index=-100)


def _half_precision(base: nn.Module, batch: MicroBatch) -> AbstractContextManager:
    """Products of a float32 adapter in bfloat16, beside a bfloat16 model.

    The adapter itself stays in float32, or updates would round away: half a step of a bfloat16
    weight of 0.01 is 3e-5, more than the learning rate.
    """
    enabled = base.dtype == torch.bfloat16
    return torch.autocast(batch.targets.device.type, torch.bfloat16, enabled=enabled)


def _in_order(batch: MicroBatch) -> bool:
    """Whether the kept positions are one row, with a target each."""
    kept = batch.inputs["logits_to_keep"]
    return batch.inputs["input_ids"].shape[0] == 1 and len(kept) == len(batch.targets)
