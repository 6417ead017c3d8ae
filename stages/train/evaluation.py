"""The loss on held-out rows: the mean over all supervised tokens, however the rows are cut."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from finetune.flat.batches import MicroBatch, collate_flat, collate_padded, fill
from finetune.flat.losses import token_nll
from finetune.text.tokens import TokenRows

SAMPLE_BATCHES = 1  # what is measured again after the run, in a process of its own


@dataclass(frozen=True)
class Part:
    """One process's micro-batch: its `number` over all processes, -1 where it only fills up.

    `source_of` is int64 [supervised tokens]: for each target, its source's place in `sources`.
    """

    number: int
    batch: MicroBatch
    sources: Sequence[str]
    source_of: torch.Tensor


@dataclass(frozen=True)
class Losses:
    """Mean negative log likelihood in nats: of all supervised tokens, a sample's, each source's."""

    mean: float
    sample: float
    of_sources: dict[str, float] = field(default_factory=dict)

    def as_metrics(self) -> dict[str, float]:
        """By the names under which they are logged; sources only where there are several."""
        several = self.of_sources if len(self.of_sources) > 1 else {}
        found = {"eval_loss": self.mean, "eval_sample_loss": self.sample}
        return found | {f"eval_loss_{name}": loss for name, loss in several.items()}


def evaluation_batches(
    rows: TokenRows, budget: int, padded: bool, process: int = 0, processes: int = 1
) -> Iterator[Part]:
    """This process's micro-batches; every process gets the same number of them."""
    collate_rows = collate_padded if padded else collate_flat
    groups = fill(rows.lengths.tolist(), budget, padded)
    sources = rows.sources
    for first in range(0, len(groups), processes):
        number = first + process
        chosen = [rows[at] for at in groups[number if number < len(groups) else 0]]
        batch = collate_rows(chosen)
        places = torch.tensor([sources.index(row.source) for row in chosen])
        yield Part(number if number < len(groups) else -1, batch, sources, places[batch.owners])


@torch.no_grad()
def measure(
    model: nn.Module,
    parts: Iterator[Part],
    device: torch.device,
    gather: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums,
    each: Callable[[], None] = lambda: None,
) -> Losses:
    """Evaluate `model`; `gather` sums over processes, `each` is called before each batch.

    Keeps no logits, draws no random number, and waits for the device once, at the end.
    """
    model.eval()
    sums, sources = None, ()
    for part in parts:
        each()
        sources = part.sources
        if sums is None:  # loss and tokens: of all, of the sample, of each source
            sums = torch.zeros(2 + len(sources), 2, dtype=torch.float64, device=device)
        losses = token_nll(model, part.batch.to(device)).double()
        found = torch.stack([losses, torch.ones_like(losses)], dim=1)
        sums[0] += found.sum(0) * (part.number >= 0)
        sums[1] += found.sum(0) * (0 <= part.number < SAMPLE_BATCHES)
        sums[2:].index_add_(0, part.source_of.to(device), found * (part.number >= 0))
    sums = gather(sums)
    mean, sample, *of_sources = (sums[:, 0] / sums[:, 1]).tolist()
    return Losses(mean, sample, dict(zip(sources, of_sources, strict=True)))
