"""The loss curve of this trainer beside that of TRL's SFTTrainer: one recipe, order and start.

    dvc repro train && python -m bench.equality models/base data/prepared --out curves.json

Both begin with the same adapter and see the same examples in the same order; TRL pads them. Each
trains in a process of its own; the differences are those of rounding, or somebody is wrong.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from bench.engines.own import make_trainer
from bench.engines.rows import in_order
from bench.runs import Run
from finetune.model.load import load_tokenizer, quantization_config, resolve
from finetune.model.weights import locate
from finetune.params import Params, load
from finetune.text.tokens import TokenRows
from stages.train.fast.fitting import plan_memory
from stages.train.settings import quieten, training_arguments
from stages.train.steps import Plan, make_plan

# What both trainers are told in the same words; TRL has its own of batches.
RECIPE = (
    "seed",
    "use_cpu",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "logging_steps",
)


def main() -> None:
    arguments = _parse()
    if arguments.child:
        print(json.dumps(_train(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        curves = {name: _start(arguments, name, adapter) for name in ("own", "trl")}
    if arguments.out:
        arguments.out.write_text(json.dumps(curves) + "\n", encoding="utf-8")
    print(describe(curves["own"], curves["trl"]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="base model, models/base")
    parser.add_argument("prepared", type=Path, help="rows, data/prepared")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="file for the losses of both")
    parser.add_argument("--child", choices=("own", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--adapter", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _start(arguments: argparse.Namespace, name: str, adapter: Path) -> list[float]:
    command = [sys.executable, "-m", "bench.equality", str(arguments.base), str(arguments.prepared)]
    command += ["--steps", str(arguments.steps), "--child", name, "--adapter", str(adapter)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    return json.loads(done.stdout.splitlines()[-1])


def describe(own: list[float], trl: list[float]) -> str:
    """How far apart the two curves are, in nats."""
    apart = [abs(a - b) for a, b in zip(own, trl, strict=True)]
    last = slice(-20, None)
    return (
        f"{len(own)} steps: apart by {statistics.mean(apart):.4f} on average, {max(apart):.4f} at "
        f"most; first loss {own[0]:.4f} and {trl[0]:.4f}, mean of the last 20 "
        f"{statistics.mean(own[last]):.4f} and {statistics.mean(trl[last]):.4f}"
    )


def _train(arguments: argparse.Namespace) -> list[float]:
    """In the child: the loss of each step."""
    quieten()
    params = load()
    train = replace(params.train, max_steps=arguments.steps, num_train_epochs=None, logging_steps=1)
    params = replace(
        params,
        compute=resolve(replace(params.compute, device="auto", dtype="auto")),
        lora=replace(params.lora, dropout=0.0),
        train=replace(train, memory="fixed"),
    )
    rows = TokenRows(arguments.prepared / "train")
    plan = make_plan(params, rows, 1)
    train = _own if arguments.child == "own" else _trl
    history = train(params, arguments, rows, plan)
    return [entry["loss"] for entry in history if "loss" in entry]


def _own(params: Params, arguments: argparse.Namespace, rows: TokenRows, plan: Plan) -> list[dict]:
    with tempfile.TemporaryDirectory() as out:
        options = training_arguments(params, params.compute, plan, Path(out))
        options.eval_strategy = options.save_strategy = "no"
        memory = plan_memory(params, arguments.base, plan, options.device)
        run = Run("own", "law", plan.share)
        trainer = make_trainer(run, params, arguments.base, rows, plan, options, memory)
        trainer.model.save_pretrained(arguments.adapter)
        trainer.train()
    return trainer.state.log_history


def _trl(params: Params, arguments: argparse.Namespace, rows: TokenRows, plan: Plan) -> list[dict]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ours = training_arguments(params, params.compute, plan, Path("unused"))
    options = SFTConfig(
        "unused",
        **{name: getattr(ours, name) for name in RECIPE},
        per_device_train_batch_size=params.train.per_device_train_batch_size,
        gradient_accumulation_steps=params.train.gradient_accumulation_steps,
        bf16=params.compute.dtype == "bfloat16",
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        _plain_model(params, arguments),
        args=options,
        train_dataset=Dataset.from_list(in_order(rows, plan)),
        processing_class=load_tokenizer(arguments.base),
    )
    trainer.train()
    return trainer.state.log_history


def _plain_model(params: Params, arguments: argparse.Namespace) -> PeftModel:
    """As transformers and peft load it, with the adapter that this project's run began with."""
    model = AutoModelForCausalLM.from_pretrained(
        locate(arguments.base),
        quantization_config=quantization_config(params.quantization, params.compute),
        dtype=getattr(torch, params.compute.dtype),
        device_map={"": 0 if params.compute.device == "cuda" else "cpu"},
        attn_implementation="sdpa",
    )
    return PeftModel.from_pretrained(model, arguments.adapter, is_trainable=True)


if __name__ == "__main__":
    main()
