"""Which modules get an adapter, by `lora.target_modules`."""

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
    for target in lora.target_modules:
        named = [module for name, module in modules.items() if is_target(name, [target])]
        if not named:
            raise ValueError(f"lora.target_modules has {target}, which the model lacks: {known}")
        if not all(isinstance(module, nn.Linear | Conv1D) for module in named):
            kind = type(named[0]).__name__
            raise ValueError(
                f"lora.target_modules has {target}, which is no linear layer ({kind}): {known}"
            )


def is_target(name: str, targets: str | Sequence[str]) -> bool:
    """Whether a module of this name gets an adapter."""
    if targets == "all-linear":
        return True
    return any(name == target or name.endswith(f".{target}") for target in targets)
