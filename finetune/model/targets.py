"""Which modules get an adapter, by `lora.target_modules` and `lora.exclude_modules`."""

import re
from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from finetune.params import Lora


def check_targets(model: nn.Module, lora: Lora) -> None:
    """Raise ValueError where `lora.target_modules` names what `model` does not have."""
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
