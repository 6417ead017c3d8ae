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
from dataclasses import replace
from pathlib import Path
from typing import Any

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
                [*command, "--child", kind], check=True, stdout=subprocess.PIPE, text=True
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
    from finetune.params import load
    from finetune.tokens import TokenRows
    from stages.train.settings import quieten
    from stages.train.steps import make_plan

    quieten()
    kind, params = arguments.child, load()
    quantization = replace(params.quantization, dequantize=not kind.endswith("4bit"))
    train = replace(params.train, max_steps=WARMUP + STEPS, warmup_steps=0)
    params = replace(params, quantization=quantization, train=train)
    rows = TokenRows(Path(arguments.prepared) / "train")
    plan = make_plan(params, rows, 1)
    with tempfile.TemporaryDirectory() as out:
        make = _own if kind.startswith("own") else _plain
        trainer = make(params, Path(arguments.base), rows, plan, Path(out))
        clock = _Clock()
        trainer.add_callback(clock.callback())
        trainer.train()
    tokens = plan.seen(WARMUP + STEPS)["tokens"] - plan.seen(WARMUP)["tokens"]
    return {"step_s": clock.seconds() / STEPS, "tokens": tokens / STEPS}


class _Clock:
    """The time from the end of the warm-up to the end of the last step."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def callback(self) -> Any:
        import time

        from transformers import TrainerCallback

        ends = self._ends

        class Ends(TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                ends.append(time.monotonic())

        return Ends()

    def seconds(self) -> float:
        return self._ends[-1] - self._ends[WARMUP - 1]


def _own(params: Any, base: Path, rows: Any, plan: Any, out: Path) -> Any:
    from bench.engines.own import make_trainer
    from bench.runs import Run
    from finetune.model import resolve
    from stages.train.fitting import plan_memory
    from stages.train.settings import training_arguments

    arguments = training_arguments(params, resolve(params.compute), plan, out)
    arguments.eval_strategy = arguments.save_strategy = "no"
    params, budget = plan_memory(params, base, plan, arguments.device)
    return make_trainer(Run("own", "law", 4), params, base, rows, plan, arguments, budget)


def _plain(params: Any, base: Path, rows: Any, plan: Any, out: Path) -> Any:
    """As it is commonly written: the whole head, a batch padded to its longest example."""
    import torch
    from transformers import Trainer

    from bench.engines.recipe import pad_to
    from finetune.model import add_lora, load_base, resolve
    from stages.train.settings import training_arguments

    examples = [
        _labelled(rows[int(row)]) for step in range(plan.steps) for row in plan.rows_of(step)
    ]
    arguments = training_arguments(params, resolve(params.compute), plan, out)
    arguments.eval_strategy = arguments.save_strategy = "no"

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    model = load_base(base, params.quantization, params.compute)
    model.set_attn_implementation("sdpa")
    return InOrder(
        add_lora(model, params.lora, params.seed),
        arguments,
        train_dataset=examples,
        data_collator=pad_to(None),
    )


def _labelled(row: Any) -> dict[str, list[int]]:
    ids = row.input_ids.tolist()
    [start, end] = row.spans.tolist()
    return {"input_ids": ids, "labels": [-100] * start + ids[start:end] + [-100] * (len(ids) - end)}


if __name__ == "__main__":
    main()
