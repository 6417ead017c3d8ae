"""How answers are scored: ROUGE, the trivial answer, and bootstrap intervals. Nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

import numpy as np
from rouge_score import rouge_scorer, tokenizers

from finetune.text.words import words


class _Words(tokenizers.Tokenizer):
    """Words in any script, and the signs that change what is meant.

    On ASCII text without such signs these are rouge-score's own tokens; its default drops every
    other letter, so that an answer in Greek would score 0, and takes C++ for C#. No stemmer:
    Porter's is for English, and a title is short enough for its exact words to matter.
    """

    def tokenize(self, text: str) -> list[str]:
        return words(text, signs=True)


_ROUGE = rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=_Words())


@dataclass(frozen=True)
class Rouge:
    """F1 of the common words (`one`) and of the longest common subsequence (`longest`), 0 to 1."""

    one: float
    longest: float


def rouge(reference: str, answer: str) -> Rouge:
    """ROUGE-1 and ROUGE-L F1 of one answer (Lin 2004), by the package rouge-score.

    Words are those of finetune.text.words with signs, not stemmed. Two texts without a word in
    common, or an empty text, score 0.
    """
    scores = _ROUGE.score(reference, answer)
    return Rouge(scores["rouge1"].fmeasure, scores["rougeL"].fmeasure)


def trivial_answers(questions: Sequence[str], references: Sequence[str]) -> list[str]:
    """The first N words of each question, N being the references' (lower) median of words.

    A model that scores no better than this has not read the question. N is taken from the very
    references that are scored, which flatters the trivial answer a little: the right direction.
    """
    count = median_low(len(reference.split()) for reference in references)
    return [" ".join(question.split()[:count]) for question in questions]


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def paired_difference(
    base: Sequence[float],
    tuned: Sequence[float],
    weights: Sequence[float],
    *,
    samples: int,
    seed: int,
) -> Interval:
    """The difference of two weighted means over the same rows, with its bootstrap interval.

    `base` and `tuned` are sums within each row, so the difference is sum(tuned - base) over
    sum(weights): with the loss summed over a row's tokens and the tokens as weights it is the
    token-weighted loss; with weights of 1 it is a plain mean. Rows are drawn with replacement, both
    models' values together (Efron and Tibshirani 1993, chapter 13). Raises ValueError unless there
    are as many of each, at least one, and some weight.
    """
    if not len(base) == len(tuned) == len(weights) or not len(base):
        raise ValueError(f"cannot pair {len(base)} base and {len(tuned)} tuned scores")
    change = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)
    if weight.min() < 0 or weight.sum() == 0:
        raise ValueError("the weights of paired rows must not be negative or all zero")
    rng = np.random.default_rng(seed)
    drawn = np.array([_ratio_of_draw(change, weight, rng) for _ in range(samples)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(change.sum() / weight.sum()), float(low), float(high))


def _ratio_of_draw(change: np.ndarray, weight: np.ndarray, rng: np.random.Generator) -> float:
    """The weighted mean of one bootstrap draw; nan for a draw without weight."""
    rows = rng.integers(len(change), size=len(change))
    total = weight[rows].sum()
    return change[rows].sum() / total if total else float("nan")
