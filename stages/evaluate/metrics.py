"""Predictions to numbers: what goes into metrics/*.json."""

from collections.abc import Sequence
from math import exp
from statistics import fmean

from stages.evaluate.predictions import Prediction
from stages.evaluate.scores import Interval, paired_difference, rouge, trivial_answers

DIGITS = 4


def summarize(predictions: Sequence[Prediction]) -> dict:
    """The metrics of one model.

    loss: nats per supervised token over all rows (token-weighted), `source` the same for each
    source where there are several. Of the rows that ask a question: rouge1, rougeL (mean F1),
    stop_rate (share of answers that end by themselves), length (mean tokens of an answer), and
    trivial (the scores of the questions' first words). Without a question: perplexity.
    """
    asked = [each for each in predictions if each.question]
    loss = token_loss(predictions)
    found: dict = {"rows": len(predictions), "loss": round(loss, DIGITS)}
    found |= _answers(asked) if asked else {"perplexity": round(exp(loss), DIGITS)}
    sources = sorted({each.source for each in predictions})
    if len(sources) > 1:
        of = {name: [each for each in predictions if each.source == name] for name in sources}
        found["source"] = {name: round(token_loss(rows), DIGITS) for name, rows in of.items()}
    return found


def token_loss(predictions: Sequence[Prediction]) -> float:
    """Nats per supervised token."""
    return sum(each.loss for each in predictions) / sum(each.tokens for each in predictions)


def trivial_scores(predictions: Sequence[Prediction]) -> dict[str, float]:
    """ROUGE of the questions' first words in place of an answer."""
    references = [each.reference for each in predictions]
    answers = trivial_answers([each.question for each in predictions], references)
    scores = [rouge(*pair) for pair in zip(references, answers, strict=True)]
    return {
        "rouge1": round(fmean(score.one for score in scores), DIGITS),
        "rougeL": round(fmean(score.longest for score in scores), DIGITS),
    }


def compare(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, samples: int, seed: int
) -> dict[str, float]:
    """tuned - base in loss and ROUGE-L, each with its paired bootstrap 95 % interval over rows."""
    weights = [each.tokens for each in tuned]
    settings = {"samples": samples, "seed": seed}
    losses = [each.loss for each in base], [each.loss for each in tuned]
    found = _interval("loss", paired_difference(*losses, weights, **settings))
    pairs = [(old.rougeL, new.rougeL) for old, new in zip(base, tuned, strict=True) if new.question]
    if pairs:
        scores = paired_difference(*zip(*pairs, strict=True), [1] * len(pairs), **settings)
        found |= _interval("rougeL", scores)
    return found


def _answers(asked: Sequence[Prediction]) -> dict:
    return {
        "rouge1": round(fmean(each.rouge1 for each in asked), DIGITS),
        "rougeL": round(fmean(each.rougeL for each in asked), DIGITS),
        "stop_rate": round(fmean(each.ended for each in asked), DIGITS),
        "length": round(fmean(each.length for each in asked), DIGITS),
        "trivial": trivial_scores(asked),
    }


def _interval(name: str, interval: Interval) -> dict[str, float]:
    return {
        name: round(interval.value, DIGITS),
        f"{name}_low": round(interval.low, DIGITS),
        f"{name}_high": round(interval.high, DIGITS),
    }
