"""Modules that are trained whole beside the adapter (lora.modules_to_save): embedding and head.

peft puts a copy of each beside the frozen one. The copies are float32 masters like the adapter
itself, and what they hand on is of the model's own type, as from the frozen ones.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn

TRAINED_WHOLE = "modules_to_save"  # in the names of a model's parameters


def settle_copies(model: PeftModel, tied: bool) -> None:
    """Make the copies of `model` what is trained; `tied`: embedding and head are one matrix.

    With two of them the model would no longer be one of its kind: its configuration, merged and
    GGUF, knows one.
    """
    copies = {name: each.modules_to_save[model.active_adapter] for name, each in wrappers(model)}
    dtype = model.get_base_model().dtype
    for copy in copies.values():
        copy.float()
        if isinstance(copy, nn.Embedding):
            copy.register_forward_hook(lambda module, args, output: output.to(dtype))
    if tied and copies:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        name = model.active_adapter
        head.modules_to_save[name].weight = embedding.modules_to_save[name].weight


def wrappers(model: nn.Module) -> Iterator[tuple[str, ModulesToSaveWrapper]]:
    """Name and wrapper of each module that has a trained copy."""
    named = model.named_modules()
    return ((name, each) for name, each in named if isinstance(each, ModulesToSaveWrapper))


def find_untrained(model: PeftModel, saved: dict[str, torch.Tensor]) -> list[str]:
    """The names in `saved` (an adapter's tensors) whose values are still those of the base."""
    found = []
    for name, wrapper in wrappers(model):
        for part, frozen in wrapper.original_module.state_dict().items():
            # Compared as it was saved: loaded beside a bfloat16 model, a small step rounds away.
            if torch.equal(saved[f"{name}.{part}"], frozen.float().cpu()):
                found.append(f"{name}.{part}")
    return found


@contextmanager
def without_warning_of_ties() -> Iterator[None]:
    """peft warns where the head is the embedding, when adding and when merging an adapter.

    `settle_copies` keeps them one, and the merged model has the base's configuration.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        yield
