"""Score the base model, or a trained adapter on it, on held-out rows.

In: base model, test split; for an adapter also the base model's predictions, to compare with.
Out: metrics, a prediction per row, and with `--report` samples and charts.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from finetune.errors import run
from finetune.model.load import load_adapter, load_base, load_tokenizer
from finetune.model.memory import fit_evaluation
from finetune.params import Params, load
from finetune.records import write_json
from stages.evaluate.checkpoint import choose
from stages.evaluate.metrics import compare, summarize
from stages.evaluate.predictions import predict, read_predictions, write_predictions
from stages.evaluate.questions import read_questions
from stages.evaluate.report import write_report


def main() -> None:
    paths = _parse()
    params = _fit(load(), paths.base)
    questions = read_questions(paths.test, params.evaluate.max_rows)
    baseline = read_predictions(paths.baseline, questions) if paths.baseline else None
    model = _load(paths, params)
    predictions = predict(model, load_tokenizer(paths.base), questions, params.evaluate)
    write_predictions(paths.predictions, predictions)
    metrics = summarize(predictions)
    if baseline:
        samples, seed = params.evaluate.bootstrap_samples, params.seed
        metrics["diff"] = compare(baseline, predictions, samples=samples, seed=seed)
    if paths.report:
        write_report(paths.report, baseline, predictions)
    write_json(paths.metrics, metrics)


def _fit(params: Params, base: Path) -> Params:
    """`params` with what the device's memory allows; no result depends on it."""
    quantization, tokens = fit_evaluation(
        base, params.quantization, params.compute, params.evaluate.micro_batch_tokens
    )
    evaluate = replace(params.evaluate, micro_batch_tokens=tokens)
    return replace(params, quantization=quantization, evaluate=evaluate)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.evaluate")
    parser.add_argument("base", type=Path, help="base model, models/base")
    parser.add_argument("test", type=Path, help="test split, data/prepared/test")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, help="the best adapter; without it the base model")
    parser.add_argument("--checkpoints", type=Path, help="the folder of step-N")
    parser.add_argument("--baseline", type=Path, help="the base model's predictions, to compare")
    parser.add_argument("--report", type=Path, help="folder for samples and charts")
    paths = parser.parse_args()
    if paths.report and not paths.baseline:
        parser.error("--report shows base beside tuned: it needs --baseline")
    return paths


def _load(paths: argparse.Namespace, params: Params) -> PreTrainedModel | PeftModel:
    """The base model, with the chosen adapter if there is one."""
    folder = None
    if paths.adapter:
        folder = choose(params.evaluate.checkpoint, paths.adapter, paths.checkpoints)
    model = load_base(paths.base, params.quantization, params.compute)
    return load_adapter(model, folder) if folder else model


if __name__ == "__main__":
    run(main)
