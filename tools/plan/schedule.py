"""Steps, passes over the data and what happens on the way, as `train` will have them."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from finetune.params import Params
from tools.plan.data import Data
from tools.plan.findings import Finding

# Up to 4 passes over the same text are about as good as new text; the value of more of them decays
# to nothing (Muennighoff et al., arXiv:2305.16264). Where to warn is this project's choice.
MANY_EPOCHS = 16
# LoRA's authors use 2e-4 for GPT-2 and GPT-3 and more for RoBERTa (arXiv:2106.09685, appendix D),
# QLoRA's 2e-4 for 7B and 13B and 1e-4 for larger models (arXiv:2305.14314, appendix B).
PUBLISHED_RATES = (1e-4, 1e-3)
FAR = 2  # times outside of them


@dataclass(frozen=True)
class Schedule:
    """The run in numbers; None where the rows are not known. `examples` are those of a step."""

    processes: int
    examples: int
    steps: int | None
    epochs: float | None
    tokens_per_step: float | None
    most_tokens_per_step: int
    evaluations: int | None
    warmup_steps: int | None
    sharded: bool = False

    @property
    def tokens(self) -> float | None:
        """Of the whole run, over all processes."""
        if self.steps is None or self.tokens_per_step is None:
            return None
        return self.steps * self.tokens_per_step


def make_schedule(params: Params, data: Data, root: Path) -> Schedule:
    """The schedule of `params` on `data`."""
    train, rows = params.train, data.train
    processes, sharded = read_launch(params, root)
    share = train.per_device_train_batch_size * train.gradient_accumulation_steps
    examples, steps = share * processes, train.max_steps
    if steps is None and rows:
        steps = math.ceil(train.num_train_epochs * rows.rows / examples)
    mean = rows.mean if rows else None
    return Schedule(
        processes=processes,
        examples=examples,
        steps=steps,
        epochs=steps * examples / rows.rows if rows and rows.rows and steps is not None else None,
        tokens_per_step=None if mean is None else examples * mean,
        most_tokens_per_step=examples * (rows.longest if rows else params.preprocess.max_length),
        evaluations=None if steps is None else 1 + steps // train.eval_steps,
        warmup_steps=None if steps is None else _warmup_steps(params, steps),
        sharded=sharded,
    )


def _warmup_steps(params: Params, steps: int) -> int:
    train = params.train
    return train.warmup_steps or math.ceil(train.warmup_ratio * steps)


def read_launch(params: Params, root: Path) -> tuple[int, bool]:
    """How many processes `launch` starts, and whether they share one model (FSDP)."""
    command, path = params.launch.command, root / params.launch.config
    config = YAML(typ="safe").load(path) if path.is_file() else {}
    sharded = config.get("distributed_type") == "FSDP"
    found = dict(re.findall(r"--(nnodes|nproc[-_]per[-_]node)[ =](\d+)", command))
    if found:  # torchrun
        counts = [int(count) for count in found.values()]
        return math.prod(counts), sharded
    several = command.split()[0] != "python"
    return (config.get("num_processes") or 1, sharded) if several else (1, False)


def check_schedule(params: Params, data: Data, plan: Schedule) -> list[Finding]:
    """What is odd about steps, passes and the learning rate."""
    checks = (_epochs, _first_evaluation, _warmup, _saves, _evaluations, _stopping, _metric, _rate)
    return [each for check in checks for each in check(params, data, plan)]


def _epochs(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    if plan.epochs is None or plan.epochs <= MANY_EPOCHS:
        return
    key = "max_steps" if params.train.max_steps else "num_train_epochs"
    about = "" if data.basis == "prepared" else "about "
    yield Finding(
        f"train.{key}",
        getattr(params.train, key),
        f"each of {about}{data.train.rows:,} rows is seen {about}{plan.epochs:,.0f} times; "
        "beyond 4 passes more of them teach less and less, in the end nothing (arXiv:2305.16264): "
        "expect an early checkpoint to be the best",
    )


def _first_evaluation(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    if plan.steps is not None and params.train.eval_steps > plan.steps:
        yield Finding(
            "train.eval_steps",
            params.train.eval_steps,
            f"the run ends after {plan.steps:,} steps, before its first evaluation: no checkpoint "
            "can be chosen by its loss; lower it",
        )
    if plan.steps is not None and params.train.logging_steps > plan.steps:
        yield Finding(
            "train.logging_steps",
            params.train.logging_steps,
            f"the run ends after {plan.steps:,} steps: no training loss will be drawn",
        )


def _warmup(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    if not plan.warmup_steps:
        return
    key, value = "train.warmup_steps", params.train.warmup_steps
    if not value:
        key, value = "train.warmup_ratio", params.train.warmup_ratio
    if plan.warmup_steps >= plan.steps:
        message = "the learning rate would never be reached, and `train` refuses it"
        yield Finding(key, value, f"the run has {plan.steps:,} steps: {message}")
    elif plan.warmup_steps > plan.steps / 2:
        yield Finding(key, value, f"more than half of the {plan.steps:,} steps")


def _saves(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    train = params.train
    if plan.steps is None:
        return
    if train.save_steps > plan.steps:
        yield Finding(
            "train.save_steps",
            train.save_steps,
            f"never reached in {plan.steps:,} steps: an interrupted run goes on from its best "
            "evaluation or from the start",
        )
    wanted = re.fullmatch(r"step-(\d+)", params.evaluate.checkpoint)
    if wanted and (int(wanted[1]) > plan.steps or int(wanted[1]) % train.save_steps):
        yield Finding(
            "evaluate.checkpoint",
            params.evaluate.checkpoint,
            f"the run saves every {train.save_steps:,} of its {plan.steps:,} steps, and its best: "
            "there may be no such checkpoint",
        )


def _evaluations(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    """A pass without gradients is half the work of a step's: the weights themselves get none."""
    tokens = data.validation.tokens if data.validation else None
    if not tokens or plan.tokens_per_step is None or plan.steps is None:
        return
    between = min(params.train.eval_steps, plan.steps) * plan.tokens_per_step
    if tokens / 2 > between:
        yield Finding(
            "train.eval_steps",
            params.train.eval_steps,
            f"evaluating {tokens:,} validation tokens takes {tokens / 2 / between:.1f} times as "
            "long as the training in between; raise it, or lower preprocess.validation_share",
        )


def _stopping(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    patience = params.train.early_stopping_patience
    if patience and plan.evaluations is not None and patience >= plan.evaluations:
        yield Finding(
            "train.early_stopping_patience",
            patience,
            f"the run has {plan.evaluations} evaluations: it cannot stop early",
        )


def _metric(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    name = params.train.metric_for_best_model
    sources = params.data.names() if len(params.data.names()) > 1 else []
    known = ["eval_loss", *(f"eval_loss_{source}" for source in sources)]
    if name not in known:
        message = f"`train` refuses it: here is {', '.join(known)}"
        yield Finding("train.metric_for_best_model", name, message)


def _rate(params: Params, data: Data, plan: Schedule) -> Iterator[Finding]:
    rate, (low, high) = params.train.learning_rate, PUBLISHED_RATES
    if low / FAR <= rate <= high * FAR:
        return
    side = f"{low / rate:.0f} times below" if rate < low else f"{rate / high:.0f} times above"
    yield Finding(
        "train.learning_rate",
        f"{rate:g}",
        f"{side} what is published for LoRA, {low:g} to {high:g} (arXiv:2106.09685, "
        "arXiv:2305.14314)",
    )
