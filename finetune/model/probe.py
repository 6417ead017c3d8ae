"""One look at a loaded model before it is used: what replaces a piece of it must give the same.

On two short examples, in seconds. What an example gives alone, by transformers' own attention, is
the measure. A model that looks ahead is refused; one that gives the examples of a flat batch
something else takes padded batches, and says so.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from finetune.flat import attention, heads
from finetune.flat.batches import MicroBatch, collate_flat, collate_padded
from finetune.flat.losses import token_nll
from finetune.text.tokens import Example

LENGTHS = (5, 9)
# Of two computations of the same logits, less their mean: the norm of the difference over that of
# the first. Other kernels differ by up to 3 % in bfloat16; seeing another example, by tens.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}

log = logging.getLogger(__name__)


def settle(model: PreTrainedModel) -> None:
    """Give `model` the attention that it can use, and a head that returns losses where it can.

    Afterwards `attention.takes_flat(model)` says how its batches are made. Raises ValueError for a
    model that cannot be trained or scored here.
    """
    examples, wanted = make_examples(model), model.config._attn_implementation
    plain, alone = _settle_plain(model, examples)
    if not _gives(model, alone, collate_padded(examples)):
        raise ValueError(
            f"{type(model).__name__} gives the examples of a padded batch something else than it "
            "gives each alone: it cannot be trained or scored here; choose another base model"
        )
    if wanted == attention.NAME and (reason := _why_not_flat(model, alone, examples)):
        model.set_attn_implementation(plain)
        log.info(f"{type(model).__name__} {reason}: padded batches with {plain} attention instead")
    _settle_head(model, examples)


def make_examples(model: nn.Module, supervised: int = max(LENGTHS)) -> list[Example]:
    """Two short ones, of tokens spread over the vocabulary; their last ones are supervised."""
    words = model.get_input_embeddings().weight.shape[0]
    ids = 1 + np.arange(1, sum(LENGTHS) + 1) * 7919 % (words - 1)
    parts = np.split(ids.astype(np.int32), [LENGTHS[0]])
    return [
        Example(
            str(number),
            "",
            part,
            np.array([max(1, len(part) - supervised), len(part)], dtype=np.int32),
        )
        for number, part in enumerate(parts)
    ]


def short_losses(model: nn.Module) -> torch.Tensor:
    """The losses of the two examples, float32, by the way that training takes."""
    base = getattr(model, "get_base_model", lambda: model)()
    collate = collate_flat if attention.takes_flat(base) else collate_padded
    with evaluating(model):
        return token_nll(model, collate(make_examples(base)).to(_device(base)))


def find_called(model: nn.Module) -> set[int]:
    """The ids of the modules that a pass over the two examples calls."""
    called: set[int] = set()
    handles = [
        each.register_forward_pre_hook(lambda module, args: called.add(id(module)))
        for each in model.modules()
    ]
    try:
        short_losses(model)
    finally:
        for handle in handles:
            handle.remove()
    return called


def agree(one: torch.Tensor, other: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two computations of the same in `dtype` differ by no more than rounding."""
    if one.shape != other.shape or not torch.isfinite(other).all():
        return False
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= TOLERANCES.get(dtype, 1e-3) * one.norm().clamp(min=1e-6))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without gradients and dropout; afterwards in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _settle_plain(
    model: PreTrainedModel, examples: list[Example]
) -> tuple[str, list[torch.Tensor]]:
    """Leave the first of transformers' own attentions that does not look ahead in place; its name,
    and the logits [tokens, words] that it gives each example alone."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    # sdpa leaves soft caps out, without a word.
    names = ["sdpa", "eager"] if model._supports_sdpa and not capped else ["eager"]
    for name in names:
        model.set_attn_implementation(name)
        alone = [_logits(model, each.input_ids) for each in examples]
        other_end = examples[1].input_ids.copy()
        other_end[-1] = examples[0].input_ids[0]
        if agree(alone[1][:-1], _logits(model, other_end)[:-1], model.dtype):
            return name, alone
    raise ValueError(
        f"{type(model).__name__} lets a token see those behind it: it is no causal language model "
        "here; choose another base model"
    )


def _why_not_flat(
    model: PreTrainedModel, alone: list[torch.Tensor], examples: list[Example]
) -> str | None:
    reason = attention.why_not_flat(model)
    if reason is None:
        model.set_attn_implementation(attention.NAME)
        if not _gives(model, alone, collate_flat(examples)):
            reason = "gives the examples of a flat batch something else than each alone"
    return reason


def _settle_head(model: PreTrainedModel, examples: list[Example]) -> None:
    own = model.get_output_embeddings()
    before = short_losses(model)
    if heads.install(model) and not agree(before, short_losses(model), model.dtype):
        model.set_output_embeddings(own)
        log.info(f"{type(model).__name__} does more than a product at its head: losses from logits")


def _gives(model: PreTrainedModel, alone: list[torch.Tensor], batch: MicroBatch) -> bool:
    """Whether the logits of a batch are those of each example alone; what it raises means no."""
    expected = torch.cat([_centred(logits[:-1]) for logits in alone])
    batch = batch.to(_device(model))

    def run() -> torch.Tensor:
        return model(**batch.inputs, use_cache=False).logits[batch.rows, batch.columns]

    found = tried(model, run)
    return found is not None and agree(expected, _centred(found), model.dtype)


def tried(model: PreTrainedModel, run: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """What `run` gives, in evaluation; None where `model` does not take what it is given."""
    try:
        with evaluating(model):
            return run()
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        log.debug("%s: %s", type(model).__name__, error)
        return None


def _centred(logits: torch.Tensor) -> torch.Tensor:
    """Less their mean, which no probability depends on."""
    return logits.float() - logits.float().mean(-1, keepdim=True)


def _logits(model: PreTrainedModel, ids: np.ndarray) -> torch.Tensor:
    """[tokens, words] of one example alone."""
    tensor = torch.from_numpy(ids.astype(np.int64))[None].to(_device(model))
    with evaluating(model):
        return model(input_ids=tensor, use_cache=False).logits[0]


def _device(model: PreTrainedModel) -> torch.device:
    return model.get_input_embeddings().weight.device
