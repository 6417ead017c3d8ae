"""Which examples each optimizer step holds, and how each process cuts its share of them.

All of it follows from the seed, the epoch and the lengths, so that every process knows every
other's share without asking, and a run that continues at any step sees the rest unchanged.
"""

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from torch.utils.data import Dataset

from finetune.flat.batches import MicroBatch, collate, collate_flat, count_groups, cut
from finetune.params import Params
from finetune.text.tokens import Example, TokenRows
from stages.train.fast import last_layer
from stages.train.fast.graphs import fill_up


@dataclass(frozen=True)
class Step:
    """One process's share of an optimizer step; `supervised` counts over all processes."""

    micro_batches: list[MicroBatch]
    supervised: int

    def pin_memory(self) -> "Step":
        """The same in page-locked memory, from which the device copies by itself."""
        return replace(self, micro_batches=[batch.pin_memory() for batch in self.micro_batches])


class Plan:
    """The order of the examples over the whole run.

    Passes over the data follow one another, each in an order of its own; a step that reaches the
    end of a pass continues in the next, so every step has exactly the configured examples.
    """

    def __init__(
        self, rows: TokenRows, *, seed: int, steps: int, share: int, processes: int, budget: int
    ) -> None:
        self.lengths, self.supervised = rows.lengths, rows.supervised
        self.seed, self.steps, self.share, self.processes = seed, steps, share, processes
        self.budget, self.padded = budget, False
        # Whether the last layer heeds `read_positions`, and whether passes are captured as graphs.
        self.reads_few = self.captured = False
        # Lengths are rounded up: each new one costs the host time to choose a kernel for it.
        self.filled = False
        self._permute = lru_cache(maxsize=4)(self._permutation)

    @property
    def examples_per_step(self) -> int:
        """Over all processes."""
        return self.share * self.processes

    def epochs(self, steps: int) -> float:
        """Passes over the data after `steps`."""
        return steps * self.examples_per_step / len(self.lengths)

    def rows_of(self, step: int) -> np.ndarray:
        """Row numbers of a step (from 0), int64."""
        first = step * self.examples_per_step
        places = np.arange(first, first + self.examples_per_step)
        epochs, at = np.divmod(places, len(self.lengths))
        return np.array([self._permute(int(e))[i] for e, i in zip(epochs, at, strict=True)])

    def cut(self, step: int, process: int) -> list[np.ndarray]:
        """Row numbers of each micro-batch; the same number of them on every process.

        One more or less on one process would leave the others waiting for its gradients. The whole
        step is cut into parts of about equal work, dealt out in turn, so that none waits long.
        """
        rows = self.rows_of(step)
        lengths = self.lengths[rows].tolist()
        count = count_groups(lengths, self.budget, self.padded, self.processes)
        parts = cut(lengths, count, self.padded)
        return [rows[part] for part in parts[process :: self.processes]]

    def seen(self, steps: int) -> dict[str, int]:
        """Examples, tokens and supervised tokens of the first `steps` steps."""
        passes, rest = divmod(steps * self.examples_per_step, len(self.lengths))
        last = self._permute(passes)[:rest]
        return {
            "examples": steps * self.examples_per_step,
            "tokens": int(passes * self.lengths.sum() + self.lengths[last].sum()),
            "supervised_tokens": int(passes * self.supervised.sum() + self.supervised[last].sum()),
        }

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))


def make_plan(params: Params, rows: TokenRows, processes: int) -> Plan:
    """The plan of the run that `params` describes."""
    train = params.train
    share = train.per_device_train_batch_size * train.gradient_accumulation_steps
    steps = train.max_steps
    if steps is None:
        steps = math.ceil(train.num_train_epochs * len(rows) / (share * processes))
    return Plan(
        rows,
        seed=params.seed,
        steps=steps,
        share=share,
        processes=processes,
        budget=train.micro_batch_tokens,
    )


class Steps(Dataset):
    """One process's steps, in order, as Trainer's training set: item `s` is all of step `s`."""

    def __init__(self, rows: TokenRows, plan: Plan, process: int) -> None:
        self._rows, self._plan, self._process = rows, plan, process

    def __len__(self) -> int:
        return self._plan.steps

    def __getitem__(self, step: int) -> Step:
        groups = self._plan.cut(step, self._process)
        micro_batches = [self._collate([self._rows[int(row)] for row in group]) for group in groups]
        return Step(micro_batches, int(self._plan.supervised[self._plan.rows_of(step)].sum()))

    def _collate(self, rows: Sequence[Example]) -> MicroBatch:
        plan = self._plan
        # Captured passes are all of one kind, so that few shapes occur.
        batch = collate_flat(rows) if plan.captured else collate(rows, plan.padded)
        filled = plan.captured or (plan.filled and "cu_seq_lens_q" in batch.inputs)
        if plan.reads_few:
            batch = last_layer.select(batch)
        # Long passes are less even in time than in shape: there a finer step adds less.
        parts = 64 if plan.filled else 16
        return fill_up(batch, int(plan.lengths.max()), parts) if filled else batch


class Ahead(Dataset):
    """`steps`, read in order: while one is used, the next is made, in page-locked memory.

    A thread, not processes: what takes time is numpy's copying, which lets others run.
    """

    def __init__(self, steps: Steps, pin: bool) -> None:
        self._steps, self._pin = steps, pin
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._next: dict[int, Future[Step]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> Step:
        waiting = self._next.pop(number, None) or self._worker.submit(self._make, number)
        self.forget()
        if number + 1 < len(self):
            self._next[number + 1] = self._worker.submit(self._make, number + 1)
        return waiting.result()

    def forget(self) -> None:
        """Drop what was made ahead: the steps are cut differently from now on."""
        for future in self._next.values():
            future.cancel()
        self._next.clear()

    def _make(self, number: int) -> Step:
        step = self._steps[number]
        return step.pin_memory() if self._pin else step
