"""Examples to micro-batches: how a set of examples is cut, and what the model is called with.

A micro-batch is flat (examples one behind the other) or, for a model whose attention cannot,
padded. Logits are asked for only where a token is supervised.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from finetune.flat.attention import causal_mask, no_mask
from finetune.text.tokens import Example

# Tokens of an example. Attention is little of a shorter one, and one more kind of pass to compile.
STACKED_FROM = 1024


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass.

    `inputs` are the model's keyword arguments. The logits that come back, [rows, kept, words],
    hold the prediction of target t at [rows[t], columns[t]]; `targets`, `rows`, `columns` and
    `owners` (the number of t's example among those collated) are int64 [supervised tokens].
    """

    inputs: dict[str, torch.Tensor | int]
    targets: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    owners: torch.Tensor
    tokens: int

    @property
    def at(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the logits of the targets are."""
        return self.rows, self.columns

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on `device`; `owners` stays where it is."""
        move = {name: _to(value, device) for name, value in self.inputs.items()}
        rest = {name: _to(getattr(self, name), device) for name in ("targets", "rows", "columns")}
        return replace(self, inputs=move, **rest)

    def pin_memory(self) -> "MicroBatch":
        """The same in page-locked memory."""
        inputs = {name: _pin(value) for name, value in self.inputs.items()}
        rest = {name: _pin(getattr(self, name)) for name in ("targets", "rows", "columns")}
        return replace(self, inputs=inputs, **rest)


def _pin(value: torch.Tensor | int) -> torch.Tensor | int:
    return value.pin_memory() if torch.is_tensor(value) else value


def _to(value: torch.Tensor | int, device: torch.device) -> torch.Tensor | int:
    return value.to(device, non_blocking=True) if torch.is_tensor(value) else value


def collate(rows: Sequence[Example], padded: bool) -> MicroBatch:
    """The examples as the model takes them: padded or flat; stacked where all are of one length.

    Windows of running text are mostly of one length, and kernels for that are faster.
    """
    if padded:
        return collate_padded(rows)
    lengths = {len(row.input_ids) for row in rows}
    stacked = len(rows) > 1 and len(lengths) == 1 and max(lengths) >= STACKED_FROM
    return collate_stacked(rows) if stacked else collate_flat(rows)


def collate_flat(rows: Sequence[Example]) -> MicroBatch:
    """The examples one behind the other, as one row."""
    lengths = np.array([len(row.input_ids) for row in rows])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    supervised = [row.supervised() for row in rows]
    positions = np.concatenate([np.arange(n) for n in lengths])
    predicting = np.concatenate(
        [at - 1 + start for at, start in zip(supervised, bounds[:-1], strict=True)]
    )
    bounds_tensor = torch.from_numpy(bounds.astype(np.int32))
    inputs = {
        "input_ids": _row([row.input_ids for row in rows]),
        "position_ids": torch.from_numpy(positions)[None],
        "attention_mask": no_mask(),
        "cu_seq_lens_q": bounds_tensor,
        "cu_seq_lens_k": bounds_tensor,
        "max_length_q": int(lengths.max()),
        "max_length_k": int(lengths.max()),
        "logits_to_keep": torch.from_numpy(predicting),
    }
    return MicroBatch(
        inputs,
        _targets(rows, supervised),
        torch.zeros(len(predicting), dtype=torch.int64),
        torch.arange(len(predicting)),
        _owners(supervised),
        int(bounds[-1]),
    )


def collate_stacked(rows: Sequence[Example]) -> MicroBatch:
    """Examples of one length below each other: nothing is padded, and causal attention is all."""
    batch = collate_padded(rows)
    return replace(batch, inputs=batch.inputs | {"attention_mask": causal_mask()})


def collate_padded(rows: Sequence[Example]) -> MicroBatch:
    """The examples below each other, padded on the right; the mask goes by position."""
    lengths = [len(row.input_ids) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    mask = np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : lengths[at]] = row.input_ids
        mask[at, : lengths[at]] = 1
    supervised = [row.supervised() for row in rows]
    predicting = np.concatenate(supervised) - 1
    # One list of positions serves all rows, so it holds every row's.
    kept, columns = np.unique(predicting, return_inverse=True)
    inputs = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "logits_to_keep": torch.from_numpy(kept),
    }
    owners = _owners(supervised)
    targets, columns = _targets(rows, supervised), torch.from_numpy(columns)
    return MicroBatch(inputs, targets, owners, columns, owners, sum(lengths))


def _row(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))[None]


def _targets(rows: Sequence[Example], supervised: list[np.ndarray]) -> torch.Tensor:
    return _row([row.input_ids[at] for row, at in zip(rows, supervised, strict=True)])[0]


def _owners(supervised: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.repeat(np.arange(len(supervised)), [len(at) for at in supervised]))


def count_groups(lengths: Sequence[int], budget: int, padded: bool, multiple: int = 1) -> int:
    """How many micro-batches these examples need so that each stays within `budget` tokens.

    A multiple of `multiple`, of which the number of examples is one too. Raises ValueError where
    one example alone is above the budget.
    """
    if max(lengths) > budget:
        raise ValueError(
            f"train.micro_batch_tokens is {budget}, an example has {max(lengths)} tokens: "
            "raise it, or lower preprocess.max_length"
        )
    fewest = math.ceil(sum(lengths) / budget / multiple) * multiple
    for groups in range(fewest, len(lengths) + 1, multiple):
        if all(_cost(lengths, group, padded) <= budget for group in cut(lengths, groups, padded)):
            return groups
    return len(lengths)


def cut(lengths: Sequence[int], groups: int, padded: bool) -> list[list[int]]:
    """Cut the examples, by number, into `groups` micro-batches of about equal work, none empty."""
    longest_first = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    if padded:
        # Neighbours in length, so that little is padded.
        return [part.tolist() for part in np.array_split(longest_first, groups)]
    parts: list[list[int]] = [[] for _ in range(groups)]
    loads = [0] * groups
    for at in longest_first:
        lightest = loads.index(min(loads))
        parts[lightest].append(at)
        loads[lightest] += lengths[at]
    return [sorted(part) for part in parts]


def fill(lengths: Sequence[int], budget: int, padded: bool) -> list[list[int]]:
    """Cut the examples into as few micro-batches as fit into `budget` tokens, longest first.

    For evaluation, where order does not matter. An example above the budget stands alone.
    """
    parts: list[list[int]] = []
    room = 0
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        # Padded to the first, which is the longest.
        cost = lengths[parts[-1][0]] if padded and parts else lengths[at]
        if not parts or cost > room:
            parts.append([])
            room, cost = budget, lengths[at]
        parts[-1].append(at)
        room -= cost
    return parts


def _cost(lengths: Sequence[int], group: Sequence[int], padded: bool) -> int:
    """Tokens of a forward pass over `group`, padding included."""
    chosen = [lengths[at] for at in group]
    return max(chosen) * len(chosen) if padded else sum(chosen)
