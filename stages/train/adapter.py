"""The adapter's own two files, and what must be true of them."""

import json
from enum import Enum
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def adapter_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors, whole, on the CPU. Every process of a sharded model must call it."""
    # A head that is the embedding has its name too: whoever loads the file looks for both.
    named = model.named_parameters(remove_duplicate=False)
    whole = {name: _whole(p.detach()) for name, p in named if p.requires_grad}
    found = get_peft_model_state_dict(model, state_dict=whole, save_embedding_layers=False)
    return _apart({name: found[name].contiguous() for name in sorted(found)})


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Safetensors refuses two names of one tensor: the later ones get a copy."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return tensors


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return getattr(tensor, "full_tensor", lambda: tensor)().cpu()


def write_adapter(
    folder: Path, model: PeftModel, weights: dict[str, torch.Tensor], base: dict[str, Any]
) -> None:
    """Write weights and configuration; the same adapter gives the same bytes.

    peft's own configuration holds the target modules in random order and the path of the base
    model on this machine; here they are sorted, and the path is the name and revision of `base`.
    """
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base["name"], "revision": base["revision"]}
    config["inference_mode"] = True
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else sorted(value)


def read_weights(model: PeftModel, folder: Path) -> None:
    """Put the weights of `folder` into the adapter of `model`.

    Raises ValueError naming the first tensor that one has and the other lacks, or of another shape.
    """
    saved = load_file(folder / WEIGHTS)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name in sorted(expected.keys() | saved.keys()):
        shapes = [list(each[name].shape) if name in each else None for each in (saved, expected)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"{folder / WEIGHTS}: {name} has shape {shapes[0]}, the model of params.yaml "
                f"{shapes[1]} (None: it lacks it); the adapter was trained with another `lora`"
            )
    set_peft_model_state_dict(model, saved)


def count_parameters(folder: Path) -> int:
    """How many numbers the adapter of `folder` has; a head that is the embedding counts once."""
    tensors = load_file(folder / WEIGHTS)
    whole = [t for name, t in tensors.items() if t.ndim > 1 and ".lora_" not in name]
    twice = [b for a, b in combinations(whole, 2) if a.shape == b.shape and torch.equal(a, b)]
    return sum(map(torch.numel, tensors.values())) - sum(map(torch.numel, twice))


def check_trained(folder: Path) -> None:
    """Raise ValueError where a lora_B is still all zeros, as it was before training."""
    untouched = [
        name
        for name, tensor in load_file(folder / WEIGHTS).items()
        if "lora_B" in name and not tensor.any()
    ]
    if untouched:
        raise ValueError(
            f"{folder / WEIGHTS}: {untouched[0]} is all zeros ({len(untouched)} such tensors): "
            "it was never trained; is train.learning_rate 0, or is the module never used?"
        )
