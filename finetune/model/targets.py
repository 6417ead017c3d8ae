"""Which modules get an adapter, by `lora.target_modules` and `lora.exclude_modules`, and which are
trained whole, by `lora.modules_to_save`."""

import re
from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune.params import Lora


def check_targets(model: nn.Module, lora: Lora) -> None:
    """Raise ValueError where `lora` names what `model` does not have, or cannot train."""
    _check_saved(model, lora)
    if lora.target_modules == "all-linear":
        return
    modules = dict(model.named_modules())
    linear = {
        name.rpartition(".")[2]
        for name, module in modules.items()
        if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings()
    }
    known = f"it has {', '.join(sorted(linear))}, or write all-linear"
    targets = lora.target_modules
    for target in [targets] if isinstance(targets, str) else targets:
        wanted = target if target is targets else [target]
        named = [module for name, module in modules.items() if is_target(name, wanted)]
        if not named:
            raise ValueError(f"lora.target_modules has {target}, which the model lacks: {known}")
        if not all(isinstance(module, nn.Linear | Conv1D) for module in named):
            kind = type(named[0]).__name__
            raise ValueError(
                f"lora.target_modules has {target}, which is no linear layer ({kind}): {known}"
            )
        if is_tied(model) and any(each is model.get_output_embeddings() for each in named):
            raise ValueError(
                f"lora.target_modules has {target}, the head, whose weight is the embedding's too: "
                "merged, the two would differ, and files for other programs hold one. Leave it "
                "out, or train both whole (lora.modules_to_save)"
            )


def _check_saved(model: nn.Module, lora: Lora) -> None:
    """The embedding and the head only: other layers are in 4 bits, which cannot be trained whole.

    The head cannot be trained whole and by an adapter.
    """
    whole = _trainable_whole(model)
    for wanted in lora.modules_to_save or []:
        named = [name for name, _ in model.named_modules() if is_target(name, [wanted])]
        if not named or not whole.keys() >= set(named):
            what = "which is neither its embedding nor its head" if named else "which it lacks"
            known = ", ".join(name.rpartition(".")[2] for name in whole)
            raise ValueError(
                f"lora.modules_to_save has {wanted}, {what}: of {type(model).__name__} these can "
                f"be trained whole: {known}"
            )
    head = model.get_output_embeddings()
    for name in find_saved(model, lora):
        by_name = lora.target_modules != "all-linear" and is_trained(name, lora)
        if by_name and whole[name] is head:
            raise ValueError(
                f"lora.target_modules and lora.modules_to_save both name {name}: leave it out of "
                "one of them"
            )


def find_saved(model: nn.Module, lora: Lora) -> list[str]:
    """The whole names of the modules that `lora.modules_to_save` names, sorted.

    Where the head is the embedding (tied), one stands for both.
    """
    whole = _trainable_whole(model)
    wanted = [name for name in whole if is_target(name, lora.modules_to_save or [])]
    return sorted(whole) if wanted and is_tied(model) else sorted(wanted)


def is_tied(model: nn.Module) -> bool:
    """Whether the head's weight is the embedding's."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _trainable_whole(model: nn.Module) -> dict[str, nn.Module]:
    """Name -> module: the embedding and the head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name: each for name, each in model.named_modules() if any(each is end for end in ends)}


def is_trained(name: str, lora: Lora) -> bool:
    """Whether a module of this name gets an adapter."""
    excluded = lora.exclude_modules is not None and is_target(name, lora.exclude_modules)
    return is_target(name, lora.target_modules) and not excluded


def is_target(name: str, targets: str | Sequence[str]) -> bool:
    """Whether `targets` names this module: by an expression for its whole name, or by its end."""
    if targets == "all-linear":
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)
