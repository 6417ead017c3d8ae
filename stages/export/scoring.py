"""An exported form on the test rows, beside the adapter: what was lost on the way."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.params import Params
from stages.evaluate.metrics import differences, main_names, measure, rounded
from stages.evaluate.predictions import Prediction
from stages.evaluate.questions import Question, read_questions
from stages.export.writing import Form

FEW_THE_SAME = 0.5  # of the answers: below, rounding is no explanation

log = logging.getLogger(__name__)


def score(form: Form, params: Params, test: Path, rows: int) -> dict[str, Any]:
    """The loss and the main score of the form and of the adapter, and their paired differences.

    On the first `rows` test rows, in the order in which evaluate takes them. Both answer greedily;
    `same_answers` is the share of answers that are the same to the letter. llama.cpp gives no
    losses of a text that it did not write itself, so GGUF has answers only.
    """
    from finetune.trained import load_trained

    questions, batch_tokens = read_questions(test, rows), params.evaluate.micro_batch_tokens
    trained = load_trained(form.adapter, "auto", batch_tokens)
    adapter = _predict(trained, form, params, questions)
    del trained
    if form.kind.startswith("gguf"):
        exported = _predict_gguf(form, params, questions, adapter)
    else:
        exported = _predict(_load_exported(form), form, params, questions)
    metrics: dict[str, Any] = {
        "kind": form.kind,
        "base": form.base,
        "rows": len(questions),
        "adapter": {},
        "export": {},
        "gap": {},
    }
    if form.kind.startswith("gguf"):
        metrics["type"] = form.type
    draws = {"samples": params.evaluate.bootstrap_samples, "seed": params.seed}
    known = [n for n in main_names(adapter) if n != "loss" or not form.kind.startswith("gguf")]
    for name in known:
        for who, predictions in (("adapter", adapter), ("export", exported)):
            metrics[who][name] = rounded(measure(predictions, name, **draws).value)
    for name, gap in differences(adapter, exported, only=known, **draws).items():
        metrics["gap"][name] = {k: _digits(getattr(gap, k)) for k in ("value", "low", "high")}
    pairs = [(a, b) for a, b in zip(adapter, exported, strict=True) if a.question]
    if pairs:
        metrics["same_answers"] = rounded(sum(a.answer == b.answer for a, b in pairs) / len(pairs))
    return metrics


def check_gap(form: Form, metrics: dict[str, Any], params: Params) -> None:
    """Raises ValueError where the form has lost more than export.max_loss_gap of the tuning.

    Of GGUF no loss is known; few answers that are the adapter's are a warning.
    """
    same = metrics.get("same_answers")
    if "loss" not in metrics["gap"] and same is not None and same < FEW_THE_SAME:
        log.warning(
            f"warning: only {same:.0%} of the answers of {form.folder} are the adapter's: compare "
            "their scores, and ask it a few questions before it is used"
        )
    gap, limit = metrics["gap"].get("loss"), params.export.max_loss_gap
    if gap is not None and gap["value"] > limit:
        raise ValueError(
            f"{form.folder} has a loss of {metrics['export']['loss']} where the adapter has "
            f"{metrics['adapter']['loss']}: more than export.max_loss_gap {limit} apart; "
            + (
                "its base is loaded in 16 bits here: export merged, or load it in 4 bits"
                if form.kind == "adapter" and form.base == "quantised"
                else "export with --base quantised, which is what was trained on"
            )
        )


def _digits(value: float | None) -> float | None:
    """Five decimals: gaps are small."""
    return None if value is None else round(value, 5)


def _predict(
    model: Any, form: Form, params: Params, questions: Sequence[Question]
) -> list[Prediction]:
    from finetune.model.load import load_tokenizer
    from stages.evaluate.predict import predict

    return predict(model, load_tokenizer(form.adapter), questions, params.evaluate)


def _predict_gguf(
    form: Form, params: Params, questions: Sequence[Question], adapter: Sequence[Prediction]
) -> list[Prediction]:
    """The adapter's predictions with the answers of llama.cpp, scored anew."""
    from stages.evaluate.custom import choose_scores
    from stages.evaluate.scores import score_all, without_thinking
    from stages.export.llama_cpp import open_model

    if form.kind == "gguf":
        ask = open_model(form.folder / "model.gguf")
    else:
        ask = open_model(form.folder / "base.gguf", form.folder / "adapter.gguf")
    asked = [each for each in questions if each.question]
    if not asked:
        raise ValueError(
            f"{form.kind} is compared by its answers, and no test row asks a question; --rows 0 "
            "leaves the comparison out"
        )
    answers = [
        without_thinking(ask(each.prompt(), params.evaluate.max_new_tokens)) for each in asked
    ]
    references = [each.reference for each in asked]
    scores = choose_scores(params.evaluate.metrics, references)
    found = iter(
        zip(
            answers,
            score_all(scores, [each.question for each in asked], references, answers),
            strict=True,
        )
    )
    made = []
    for each in adapter:
        answer, scored = next(found) if each.question else ("", {})
        made.append(replace(each, answer=answer, scores=scored))
    return made


def _load_exported(form: Form) -> Any:
    """The export as others load it: by transformers and peft alone."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    from finetune.flat import attention

    attention.register()
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    options = {"dtype": dtype, "local_files_only": True, "attn_implementation": attention.NAME}
    kind = AutoPeftModelForCausalLM if form.kind == "adapter" else AutoModelForCausalLM
    model = kind.from_pretrained(form.folder, **options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
