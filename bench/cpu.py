"""Seconds a step of params.yaml on the CPU: this trainer, and Trainer with padded batches.

    dvc repro train && python -m bench.cpu models/base data/prepared

All train the same adapter on the same weights and the same examples in the same order, each in a
process of its own, in turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from bench.engines.own import make_trainer
from bench.engines.recipe import pad_to
from bench.engines.rows import in_order
from bench.runs import Run
from finetune.model.load import add_lora, load_base, resolve
from finetune.params import Params, load
from finetune.text.tokens import TokenRows
from stages.train.fast.fitting import plan_memory
from stages.train.settings import quieten, training_arguments
from stages.train.steps import Plan, make_plan

STEPS, WARMUP = 6, 2
KINDS = ("own", "plain", "own-4bit", "plain-4bit")


def main() -> None:
    arguments = _parse()
    if arguments.child:
        print(json.dumps(_measure(arguments)))
        return
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.repeats):
        for kind in KINDS:
            command = [sys.executable, "-m", "bench.cpu", arguments.base, arguments.prepared]
            done = subprocess.run(
                [*command, "--child", kind],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            found[kind].append(json.loads(done.stdout.splitlines()[-1]))
    print("| what | s a step | real tokens/s | all |\n|---|---|---|---|")
    for kind, results in found.items():
        seconds = [result["step_s"] for result in results]
        speed = results[0]["tokens"] / statistics.median(seconds)
        every = ", ".join(f"{each:.2f}" for each in seconds)
        print(f"| {kind} | {statistics.median(seconds):.2f} | {speed:.0f} | {every} |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="base model, models/base")
    parser.add_argument("prepared", help="rows, data/prepared")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(arguments: argparse.Namespace) -> dict[str, float]:
    """In the child: seconds a step after the first ones, and the real tokens of a step."""
    quieten()
    kind, base, params = arguments.child, Path(arguments.base), load()
    quantization = replace(params.quantization, dequantize=not kind.endswith("4bit"))
    train = replace(params.train, max_steps=WARMUP + STEPS, warmup_steps=0)
    params = replace(params, quantization=quantization, train=train)
    rows = TokenRows(Path(arguments.prepared) / "train")
    plan = make_plan(params, rows, 1)
    make = _own if kind.startswith("own") else _plain
    with tempfile.TemporaryDirectory() as out:
        options = training_arguments(params, resolve(params.compute), plan, Path(out))
        options.eval_strategy = options.save_strategy = "no"
        trainer = make(params, base, rows, plan, options)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    tokens = plan.seen(WARMUP + STEPS)["tokens"] - plan.seen(WARMUP)["tokens"]
    seconds = clock.ends[-1] - clock.ends[WARMUP - 1]
    return {"step_s": seconds / STEPS, "tokens": tokens / STEPS}


class Clock(TrainerCallback):
    """Notes when each step ends. All runs are timed over the same steps, not over a time."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.monotonic())


def _own(
    params: Params, base: Path, rows: TokenRows, plan: Plan, options: TrainingArguments
) -> Trainer:
    memory = plan_memory(params, base, plan, options.device)
    return make_trainer(Run("own", "law", plan.share), params, base, rows, plan, options, memory)


def _plain(
    params: Params, base: Path, rows: TokenRows, plan: Plan, options: TrainingArguments
) -> Trainer:
    """As it is commonly written: the whole head, a batch padded to its longest example."""
    model = load_base(base, params.quantization, params.compute)
    model.set_attn_implementation("sdpa")
    return InOrder(
        add_lora(model, params.lora, params.seed),
        options,
        train_dataset=in_order(rows, plan),
        data_collator=pad_to(None),
    )


class InOrder(Trainer):
    """Takes the examples as they come: the plan's order."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


if __name__ == "__main__":
    main()
