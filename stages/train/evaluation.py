"""The loss on held-out rows: the mean over all supervised tokens, however the rows are cut."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from finetune.flat.batches import MicroBatch, collate_flat, collate_padded, fill
from finetune.flat.losses import token_nll
from finetune.text.tokens import TokenRows

SAMPLE_BATCHES = 1  # what is measured again after the run, in a process of its own


@dataclass(frozen=True)
class Losses:
    """Mean negative log likelihood in nats: of all supervised tokens, and of the sample's."""

    mean: float
    sample: float


def evaluation_batches(
    rows: TokenRows, budget: int, padded: bool, process: int = 0, processes: int = 1
) -> Iterator[tuple[int, MicroBatch]]:
    """This process's micro-batches with their number over all processes.

    Every process gets the same number of them; the number is -1 where one only fills up.
    """
    collate = collate_padded if padded else collate_flat
    groups = fill(rows.lengths.tolist(), budget, padded)
    for first in range(0, len(groups), processes):
        number = first + process
        group = groups[number if number < len(groups) else 0]
        yield (number if number < len(groups) else -1), collate([rows[at] for at in group])


@torch.no_grad()
def measure(
    model: nn.Module,
    batches: Iterator[tuple[int, MicroBatch]],
    device: torch.device,
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums,
    each: Callable[[], None] = lambda: None,
) -> Losses:
    """Evaluate `model`; `gather` sums over processes, `each` is called before each batch.

    Keeps no logits, draws no random number, and waits for the device once, at the end.
    """
    model.eval()
    sums = torch.zeros(2, 2, dtype=torch.float64, device=device)  # all and sample; loss and tokens
    for number, batch in batches:
        each()
        nll = token_nll(model, batch.to(device)).sum(dtype=torch.float64)
        part = torch.stack([nll, torch.tensor(float(len(batch.targets)), dtype=nll.dtype).to(nll)])
        sums[0] += part * (number >= 0)
        sums[1] += part * (0 <= number < SAMPLE_BATCHES)
    sums = gather(sums)
    mean, sample = (sums[:, 0] / sums[:, 1]).tolist()
    return Losses(mean, sample)
