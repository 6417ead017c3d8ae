"""The measurement's rows in the form that the peers take."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from bench.workloads import draw_rows
from finetune.text.tokens import TokenRows

if TYPE_CHECKING:
    from stages.train.steps import Plan

TARGETS = {
    "law": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "food": ["q_proj", "k_proj", "v_proj"],
}


def adapter_targets(adapter: str) -> list[str]:
    """The layers that the preset trains."""
    return TARGETS[adapter]


def as_rows(kind: str, count: int, words: int) -> list[dict[str, list[int]]]:
    """input_ids and labels, -100 where nothing is supervised."""
    return [labelled(ids, *span) for ids, span in draw_rows(kind, count, words)]


def labelled(ids: list[int], start: int, end: int) -> dict[str, list[int]]:
    """input_ids and labels of an example whose tokens [start, end) are supervised."""
    return {"input_ids": ids, "labels": [-100] * start + ids[start:end] + [-100] * (len(ids) - end)}


def in_order(rows: TokenRows, plan: "Plan") -> list[dict[str, list[int]]]:
    """The examples of all steps of `plan`, one after the other."""
    drawn = [rows[int(row)] for step in range(plan.steps) for row in plan.rows_of(step)]
    return [labelled(row.input_ids.tolist(), *row.spans.tolist()) for row in drawn]


class Counting:
    """A collator that counts the real tokens that pass through it, batch by batch."""

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self._collator = collator
        self._seen = [0]

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        self._seen.append(self._seen[-1] + sum(len(row["input_ids"]) for row in rows))
        return self._collator(rows)

    def tokens(self, trainer: Trainer) -> int:
        """Of the steps that `trainer` has made; the loader is a batch ahead of it."""
        return self._seen[trainer.state.global_step * trainer.args.gradient_accumulation_steps]
