"""Score the base model, or a trained adapter on it, on held-out rows.

In: base model, test split; for an adapter also the base model's predictions, to compare with.
Out: metrics, a prediction per row, and with `--report` samples and charts.
"""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from finetune.errors import run
from finetune.model.load import load_adapter, load_base, load_tokenizer
from finetune.model.memory import fit_evaluation
from finetune.params import Params, load
from finetune.records import write_json
from stages.evaluate.checkpoint import choose
from stages.evaluate.forgotten import forgotten, read_passages
from stages.evaluate.intervals import ENOUGH_GROUPS
from stages.evaluate.losses import row_losses
from stages.evaluate.metrics import compare, merge, summarize
from stages.evaluate.predict import predict
from stages.evaluate.predictions import read_predictions, write_predictions
from stages.evaluate.questions import read_questions
from stages.evaluate.report import write_report


def main() -> None:
    paths = _parse()
    params = load()
    folder = _adapter(paths, params)
    params = _fit(params, paths.base, folder)
    questions = read_questions(paths.test, params.evaluate.max_rows)
    baseline = read_predictions(paths.baseline, questions) if paths.baseline else None
    tokenizer = load_tokenizer(paths.base)
    passages = read_passages(Path(params.evaluate.general_text), tokenizer) if baseline else []
    model = load_base(paths.base, params.quantization, params.compute)
    before = row_losses(model, passages, params.evaluate.micro_batch_tokens)
    model = load_adapter(model, folder) if folder else model
    predictions = predict(model, tokenizer, questions, params.evaluate)
    write_predictions(paths.predictions, predictions)
    draws = {"samples": params.evaluate.bootstrap_samples, "seed": params.seed}
    metrics = summarize(predictions, **draws)
    if baseline:
        after = row_losses(model, passages, params.evaluate.micro_batch_tokens)
        metrics["forgotten"] = forgotten(passages, before, after, **draws)
        metrics = merge(metrics, compare(baseline, predictions, **draws))
    if paths.report:
        scores = {"base": summarize(baseline, **draws), "tuned": metrics}
        write_report(paths.report, baseline, predictions, scores, **draws)
    write_json(paths.metrics, metrics)
    _say(metrics)


def _fit(params: Params, base: Path, adapter: Path | None) -> Params:
    """`params` with what the device's memory allows; no result depends on it."""
    quantization, tokens = fit_evaluation(
        base, params.quantization, params.compute, params.evaluate.micro_batch_tokens, adapter
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


def _adapter(paths: argparse.Namespace, params: Params) -> Path | None:
    """The folder of the chosen adapter, if one is evaluated."""
    if not paths.adapter:
        return None
    return choose(params.evaluate.checkpoint, paths.adapter, paths.checkpoints)


def _say(metrics: dict) -> None:
    """What a reader of the numbers must know."""
    if metrics["groups"] < ENOUGH_GROUPS:
        logging.warning(
            "%d rows in %d independent groups: below %d there is no interval (null); raise "
            "evaluate.max_rows or preprocess.test_share",
            *(metrics["rows"], metrics["groups"], ENOUGH_GROUPS),
        )
    for name, least in metrics.get("detectable", {}).items():
        if least is not None:
            logging.info("%s: a true difference of %.4f would be seen 4 times in 5", name, least)


if __name__ == "__main__":
    run(main)
