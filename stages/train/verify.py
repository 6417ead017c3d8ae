"""Load a saved adapter as its users will, in a process of its own, and measure it again.

In: base model, prepared data, adapter folder, and the loss that the training process measured.
Ends with exit code 1 if the adapter does not give that loss.
"""

import argparse
import logging
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from finetune.checkpoints import find_damage
from finetune.errors import run
from finetune.flat import attention
from finetune.model.load import load_adapter, load_base, resolve
from finetune.model.memory import fit_evaluation
from finetune.model.saved import find_untrained
from finetune.params import Params, load
from finetune.text.tokens import TokenRows
from stages.train.adapter import WEIGHTS
from stages.train.evaluation import SAMPLE_BATCHES, evaluation_batches, measure
from stages.train.settings import quieten

# What a launcher sets, and would make the process wait for others.
OURS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC", "ACCELERATE")
# Other kernels may be chosen where other memory is free; bfloat16 has 8 bits of precision.
TOLERANCES = {"float32": 1e-3, "bfloat16": 2e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("base", "prepared", "adapter"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--budget", type=int, required=True)
    arguments, params = parser.parse_args(), load()
    quieten()
    found = reload_loss(
        params, arguments.base, arguments.prepared, arguments.adapter, arguments.budget
    )
    compare(found, arguments.loss, TOLERANCES[resolve(params.compute).dtype], arguments.adapter)


def verify(base: Path, prepared: Path, adapter: Path, loss: float, budget: int) -> None:
    """Run this module in a fresh process. Raises ValueError if it ends badly."""
    command = [sys.executable, "-m", "stages.train.verify", str(base), str(prepared), str(adapter)]
    command += ["--loss", repr(loss), "--budget", str(budget)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    if subprocess.run(command, env=environment).returncode:
        raise ValueError(f"{adapter} does not load as it was trained; see the line above")


def reload_loss(params: Params, base: Path, prepared: Path, adapter: Path, budget: int) -> float:
    """The loss of the freshly loaded adapter on the first validation micro-batches.

    Raises ValueError where a file, a key or a tensor is not what was saved.
    """
    if damage := find_damage(adapter):
        raise ValueError(damage)
    quantization, _ = fit_evaluation(base, params.quantization, params.compute, budget, adapter)
    model = load_base(base, quantization, params.compute)
    padded = not attention.takes_flat(model)
    model = load_adapter(model, adapter)
    # Without this, peft asks the hub whether the vocabulary was enlarged.
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    saved = load_file(adapter / WEIGHTS)
    _compare_tensors(loaded, saved, adapter)
    if untrained := find_untrained(model, saved):
        raise ValueError(
            f"{adapter / WEIGHTS}: {untrained[0]} is the base model's: it was never trained; is "
            "train.learning_rate 0?"
        )
    device = model.get_input_embeddings().weight.device
    rows = TokenRows(prepared / "validation")
    batches = islice(evaluation_batches(rows, budget, padded), SAMPLE_BATCHES)
    return measure(model, batches, device).sample


def compare(found: float, expected: float, tolerance: float, adapter: Path) -> None:
    """Raise ValueError where the two losses differ by more than `tolerance`, relatively."""
    if not abs(found - expected) <= tolerance * max(abs(expected), 1e-3):
        raise ValueError(
            f"{adapter} gives a validation loss of {found:.5f} after loading, {expected:.5f} in "
            "the training process: what was saved is not what was trained"
        )
    logging.info(f"{adapter} loads and gives the loss that training measured ({found:.4f})")


def _compare_tensors(
    loaded: dict[str, torch.Tensor], saved: dict[str, torch.Tensor], adapter: Path
) -> None:
    missing = [*sorted(loaded.keys() - saved.keys()), *sorted(saved.keys() - loaded.keys())]
    if missing:
        raise ValueError(f"{adapter / WEIGHTS}: {missing[0]} is not in both file and model")
    # Modules that were trained whole are loaded in the compute type.
    exact = {name: tensor.to(loaded[name].dtype) for name, tensor in saved.items()}
    changed = [name for name in saved if not torch.equal(loaded[name].cpu(), exact[name])]
    if changed:
        raise ValueError(f"{adapter / WEIGHTS}: {changed[0]} is not loaded as it was saved")


if __name__ == "__main__":
    run(main)
