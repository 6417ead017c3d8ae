"""How a model answers, apart from whether it is right. Nothing heavy."""

from collections.abc import Sequence
from statistics import fmean

from finetune.text.words import words
from stages.evaluate.predictions import Prediction

RUN = 3  # words in a row that count as copied


def describe(asked: Sequence[Prediction]) -> dict[str, float | None]:
    """Means over the answers.

    stop_rate: share that end by themselves. empty: share without any text. repeated: share of an
    answer's 4-grams of words that it had before. copied: share of its words that stand in a run of
    three or more that the question has too; reference_copied: the same of the references. length:
    tokens; length_ratio: words of all answers over words of all references.
    """
    written = [words(each.answer) if each.answer else [] for each in asked]
    due = [words(each.reference) for each in asked]
    questions = [words(each.question) for each in asked]
    return {
        "stop_rate": fmean(each.ended for each in asked),
        "empty": fmean(not answer for answer in written),
        "repeated": fmean(repeated_share(answer) for answer in written),
        "copied": fmean(copied_share(*pair) for pair in zip(written, questions, strict=True)),
        "reference_copied": fmean(copied_share(*pair) for pair in zip(due, questions, strict=True)),
        "length": fmean(each.length for each in asked),
        "length_ratio": sum(map(len, written)) / (sum(map(len, due)) or 1),
    }


def repeated_share(answer: Sequence[str], size: int = 4) -> float:
    """Share of the n-grams that occurred earlier in the same answer; 0 for a shorter answer."""
    grams = _grams(answer, size)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def copied_share(answer: Sequence[str], question: Sequence[str]) -> float:
    """Share of the words that stand in a run of RUN words or more of the question."""
    there, copied = set(_grams(question, RUN)), set()
    for at, gram in enumerate(_grams(answer, RUN)):
        if gram in there:
            copied.update(range(at, at + RUN))
    return len(copied) / len(answer) if answer else 0.0


def _grams(found: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(found[at : at + size]) for at in range(len(found) - size + 1)]
