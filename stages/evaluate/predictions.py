"""A prediction per row, and the file that keeps them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.generation import Answer
from finetune.params import Evaluate
from stages.evaluate.answers import score_and_answer
from stages.evaluate.losses import row_losses
from stages.evaluate.questions import Question
from stages.evaluate.scores import rouge

NO_ANSWER = Answer("", 0, False)


@dataclass(frozen=True)
class Prediction:
    """How one row came out.

    `loss` is in nats, summed over the row's `tokens` supervised tokens; `length` is the answer's
    tokens without the end token; `ended` says that the model wrote that end token itself.
    """

    id: str
    source: str
    question: str
    reference: str
    answer: str
    loss: float
    tokens: int
    rouge1: float
    rougeL: float  # noqa: N815 (the name that everybody knows)
    length: int
    ended: bool


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    settings: Evaluate,
) -> list[Prediction]:
    """Score every row, and answer those that have a question, in the order given."""
    asked = [each for each in questions if each.question]
    found: dict[str, tuple[float, Answer]] = {}
    if asked:
        results = score_and_answer(model, tokenizer, asked, settings)
        found |= dict(zip((each.row.id for each in asked), results, strict=True))
    texts = [each.row for each in questions if not each.question]
    if texts:
        losses = row_losses(model, texts, settings.micro_batch_tokens)
        found |= {row.id: (loss, NO_ANSWER) for row, loss in zip(texts, losses, strict=True)}
    return [_prediction(each, *found[each.row.id]) for each in questions]


def _prediction(question: Question, loss: float, answer: Answer) -> Prediction:
    if not isfinite(loss):
        raise ValueError(
            f"the loss of row {question.row.id} is {loss}: the weights have overflowed; "
            "try a lower train.learning_rate or compute.dtype float32"
        )
    score = rouge(question.reference, answer.text)
    return Prediction(
        id=question.row.id,
        source=question.row.source,
        question=question.question,
        reference=question.reference,
        answer=answer.text,
        loss=round(loss, 4),
        tokens=len(question.row.supervised()),
        rouge1=round(score.one, 4),
        rougeL=round(score.longest, 4),
        length=answer.tokens,
        ended=answer.ended,
    )


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON object a line. Atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    lines = [json.dumps(asdict(each), ensure_ascii=False) for each in predictions]
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.rename(path)


def read_predictions(path: Path, questions: Sequence[Question]) -> list[Prediction]:
    """The predictions for exactly these questions.

    Raises ValueError if they were made for others: scores of different rows do not compare.
    """
    names = [field.name for field in fields(Prediction)]
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [Prediction(**{name: json.loads(line)[name] for name in names}) for line in lines]
    wanted = [(q.row.id, q.question, q.reference, len(q.row.supervised())) for q in questions]
    there = [(each.id, each.question, each.reference, each.tokens) for each in kept]
    if there != wanted:
        raise ValueError(
            f"{path} has {len(there)} rows, of which {len(set(there) & set(wanted))} are among the "
            f"{len(wanted)} scored now: base and tuned need the same; run `dvc repro baseline`"
        )
    return kept
