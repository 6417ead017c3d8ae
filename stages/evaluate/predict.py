"""Score every row with a model, and let it answer those that ask a question."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from math import isfinite

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.generation import Answer
from finetune.params import Evaluate
from stages.evaluate.answers import score_and_answer
from stages.evaluate.custom import choose_scores
from stages.evaluate.losses import row_losses
from stages.evaluate.predictions import Prediction
from stages.evaluate.questions import Question
from stages.evaluate.scores import score_all, trivial_answers, without_thinking

NO_ANSWER = Answer("", 0, False)


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    settings: Evaluate,
) -> list[Prediction]:
    """Score every row, and answer those that have a question, in the order given."""
    asked = [each for each in questions if each.question]
    texts = [each for each in questions if not each.question]
    scores = choose_scores(settings.metrics, [each.reference for each in asked])
    answered = scored = iter(())
    if asked:
        _tell_too_long(asked, settings.max_new_tokens)
        results = score_and_answer(model, tokenizer, asked, settings)
        answered = iter(_score(asked, results, scores))
    if texts:
        losses = row_losses(model, [each.row for each in texts], settings.micro_batch_tokens)
        pairs = zip(texts, losses, strict=True)
        scored = iter([_prediction(each, loss, NO_ANSWER) for each, loss in pairs])
    return [next(answered if each.question else scored) for each in questions]


def _tell_too_long(asked: Sequence[Question], most: int) -> None:
    long = sum(len(each.row.input_ids) - each.row.spans[-2] > most for each in asked)
    if long:
        logging.warning(
            f"warning: {long} of {len(asked)} reference answers have more tokens than "
            f"evaluate.max_new_tokens {most}, so that no answer can equal them: raise it"
        )


def _score(
    asked: Sequence[Question],
    results: Sequence[tuple[float, Answer]],
    scores: Mapping,
) -> list[Prediction]:
    """The predictions of the rows that ask: each answer, and the trivial one, scored."""
    questions = [each.question for each in asked]
    references = [without_thinking(each.reference) or each.reference for each in asked]
    answers = [without_thinking(answer.text) for _, answer in results]
    trivial = trivial_answers(questions, references)
    columns = (answers, trivial)
    found = [score_all(scores, questions, references, column) for column in columns]
    pairs = zip(results, answers, strict=True)
    if thought := sum(answer.text.strip() != kept for (_, answer), kept in pairs):
        logging.info("%d of %d answers think aloud first: that is not scored", thought, len(asked))
    return [
        _prediction(question, loss, answer, kept, own, least)
        for question, (loss, answer), kept, own, least in zip(
            asked, results, answers, *found, strict=True
        )
    ]


def _prediction(
    question: Question,
    loss: float,
    answer: Answer,
    kept: str = "",
    scores: dict[str, float] | None = None,
    trivial: dict[str, float] | None = None,
) -> Prediction:
    if not isfinite(loss):
        raise ValueError(
            f"the loss of row {question.row.id} is {loss}: the weights have overflowed; "
            "try a lower train.learning_rate or compute.dtype float32"
        )
    return Prediction(
        id=question.row.id,
        source=question.row.source,
        question=question.question,
        reference=question.reference,
        answer=kept,
        loss=round(loss, 4),
        tokens=len(question.row.supervised()),
        length=answer.tokens,
        ended=answer.ended,
        document=question.document,
        group=question.group,
        label=question.label,
        prompt=_hash(question.prompt()) if question.question else "",
        thinking=answer.text if answer.text.strip() != kept else "",
        scores=scores or {},
        trivial=trivial or {},
    )


def _hash(prompt: Sequence[int]) -> str:
    """16 digits that differ where the model was asked anything else."""
    return hashlib.sha256(" ".join(map(str, prompt)).encode()).hexdigest()[:16]
