"""Predictions to numbers: what goes into metrics/*.json. Nothing heavy.

What each number means is in docs/evaluation.md.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import exp

import numpy as np

from stages.evaluate.behaviour import describe
from stages.evaluate.intervals import Bootstrap, Interval
from stages.evaluate.predictions import Prediction
from stages.evaluate.scores import label

DIGITS = 4
MOST_PARTS = 30  # labels or sources with numbers of their own; the largest ones
LOWER_IS_BETTER = ("loss",)


def summarize(predictions: Sequence[Prediction], *, samples: int, seed: int) -> dict:
    """The metrics of one model.

    rows, groups (of rows that are not independent), loss (nats per supervised token over all
    rows), the mean of each score of the answers, macro_f1 beside accuracy, `interval` with the
    bounds of each, `trivial` with the trivial answer's scores, how it answers (behaviour.py), and
    `source` and `label` with loss and main score of each, where there are several. Without a
    question: perplexity.
    """
    draws = _draws(predictions, samples, seed)
    asked = [each for each in predictions if each.question]
    found: dict = {"rows": len(predictions), "groups": draws.groups}
    intervals = {name: measure(predictions, name, samples, seed) for name in names(predictions)}
    found |= {name: rounded(each.value) for name, each in intervals.items()}
    found["interval"] = {
        name: {"low": rounded(each.low), "high": rounded(each.high)}
        for name, each in intervals.items()
    }
    if asked:
        found |= {name: rounded(value) for name, value in describe(asked).items()}
        found["trivial"] = trivial_scores(asked)
    else:
        found["perplexity"] = rounded(exp(token_loss(predictions)))
    for by in ("source", "label"):
        if len(parts := split(predictions, by)) > 1:
            found[by] = {
                name: _summary_of_part([predictions[at] for at in rows])
                for name, rows in parts.items()
            }
    return found


def compare(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, samples: int, seed: int
) -> dict:
    """What tuning changed, on the same rows, with paired 95 % intervals over groups.

    diff: tuned - base of each metric, with NAME_low and NAME_high; over_trivial: tuned - the
    trivial answer; detectable: the smallest difference that this test set shows four times in five;
    `source` and `label`: the differences of each part.
    """
    settings = {"samples": samples, "seed": seed}
    found = differences(base, tuned, **settings)
    least = {name: over_trivial(tuned, name, **settings) for name in score_names(tuned)}
    result: dict = {
        "diff": flatten(found),
        "detectable": {name: rounded(each.detectable) for name, each in found.items()},
    }
    if least:
        result["over_trivial"] = flatten(least)
    for by in ("source", "label"):
        if len(parts := split(tuned, by)) > 1:
            result[by] = {
                name: {"diff": flatten(part_differences(base, tuned, rows, **settings))}
                for name, rows in parts.items()
            }
    return result


def differences(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    *,
    samples: int,
    seed: int,
    only: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """tuned - base of each metric that both have."""
    shared = [name for name in names(tuned) if name in names(base)]
    return {
        name: difference(base, tuned, name, samples=samples, seed=seed)
        for name in shared
        if only is None or name in only
    }


def part_differences(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    rows: Sequence[int],
    *,
    samples: int,
    seed: int,
) -> dict[str, Interval]:
    """tuned - base of the loss and the main score over some of the rows."""
    before, after = ([model[at] for at in rows] for model in (base, tuned))
    return differences(before, after, samples=samples, seed=seed, only=main_names(tuned))


def difference(
    base: Sequence[Prediction], tuned: Sequence[Prediction], name: str, *, samples: int, seed: int
) -> Interval:
    """tuned - base of one metric over the same rows."""
    before, after = _columns(base, name), _columns(tuned, name)
    statistic = _statistic(name)
    width = before.shape[1]
    draws = _draws(_scored(tuned, name), samples, seed)
    return draws.statistic(
        np.concatenate([before, after], axis=1),
        lambda totals: statistic(totals[..., width:]) - statistic(totals[..., :width]),
    )


def over_trivial(tuned: Sequence[Prediction], name: str, *, samples: int, seed: int) -> Interval:
    """tuned - the trivial answer, of one score."""
    asked = _scored(tuned, name)
    change = [each.scores[name] - each.trivial[name] for each in asked]
    return _draws(asked, samples, seed).mean(change)


def measure(predictions: Sequence[Prediction], name: str, samples: int, seed: int) -> Interval:
    """One metric of one model, with its own interval."""
    draws = _draws(_scored(predictions, name), samples, seed)
    return draws.statistic(_columns(predictions, name), _statistic(name))


def names(predictions: Sequence[Prediction]) -> list[str]:
    """The metrics that these predictions have, the loss first."""
    scores = score_names(predictions)
    return ["loss", *scores, *(["macro_f1"] if "accuracy" in scores else [])]


def score_names(predictions: Sequence[Prediction]) -> list[str]:
    """The scores of answers."""
    return next((list(each.scores) for each in predictions if each.question), [])


def main_name(predictions: Sequence[Prediction]) -> str:
    """What decides: accuracy where answers are labels, else the loss, which sees most."""
    return "accuracy" if "accuracy" in score_names(predictions) else "loss"


def main_names(predictions: Sequence[Prediction]) -> list[str]:
    """The loss, and the score that says most of an answer."""
    scores = score_names(predictions)
    best = [n for n in ("accuracy", "rougeL", "token_f1", "exact_match", "chrf") if n in scores]
    return ["loss", *(best or scores)[:1]]


def token_loss(predictions: Sequence[Prediction]) -> float:
    """Nats per supervised token."""
    return sum(each.loss for each in predictions) / sum(each.tokens for each in predictions)


def trivial_scores(asked: Sequence[Prediction]) -> dict[str, float]:
    """The trivial answer's scores."""
    found = {n: rounded(np.mean([each.trivial[n] for each in asked])) for n in score_names(asked)}
    if "accuracy" in found:
        references = [label(each.reference) for each in asked]
        correct = [each.reference for each in asked if each.trivial["accuracy"]]
        answer = label(correct[0]) if correct else ""
        found["macro_f1"] = rounded(macro_f1(references, [answer] * len(asked)))
    return found


def confusion(predictions: Sequence[Prediction]) -> list[dict]:
    """How often each label was answered with each; what is no label is `other`, or `(other)` where
    that is one."""
    asked = [each for each in predictions if "accuracy" in each.scores]
    labels = {label(each.reference) for each in asked}
    other = "(other)" if "other" in labels else "other"
    pairs = Counter(
        (label(each.reference), answer if (answer := label(each.answer)) in labels else other)
        for each in asked
    )
    return [
        {"reference": reference, "answer": answer, "rows": rows}
        for (reference, answer), rows in sorted(pairs.items())
    ]


def macro_f1(references: Sequence[str], answers: Sequence[str]) -> float:
    """The mean over the references' labels of F1 = 2 hits / (answered + due)."""
    columns = _hits(references, answers)
    return float(_macro(columns.sum(0)[None])[0])


def split(predictions: Sequence[Prediction], by: str) -> dict[str, list[int]]:
    """The rows of each source or label by name, of the largest where there are many."""
    counted = Counter(name for each in predictions if (name := getattr(each, by)))
    largest = sorted(counted, key=lambda name: (-counted[name], name))[:MOST_PARTS]
    return {
        name: [at for at, each in enumerate(predictions) if getattr(each, by) == name]
        for name in sorted(largest)
    }


def merge(first: dict, second: dict) -> dict:
    """Both, nested dictionaries merged key by key."""
    both = first.keys() & second.keys()
    return {**first, **second, **{key: merge(first[key], second[key]) for key in both}}


def flatten(intervals: dict[str, Interval]) -> dict[str, float | None]:
    """NAME, NAME_low and NAME_high of each, rounded."""
    found: dict[str, float | None] = {}
    for name, each in intervals.items():
        found |= {name: rounded(each.value), f"{name}_low": rounded(each.low)}
        found[f"{name}_high"] = rounded(each.high)
    return found


def _draws(predictions: Sequence[Prediction], samples: int, seed: int) -> Bootstrap:
    groups = tuple(each.group or each.document or each.id for each in predictions)
    return _bootstrap(groups, samples, seed)


@lru_cache(maxsize=8)  # the same draws for every metric of the same rows
def _bootstrap(groups: tuple[str, ...], samples: int, seed: int) -> Bootstrap:
    return Bootstrap(groups, samples=samples, seed=seed)


def _scored(predictions: Sequence[Prediction], name: str) -> list[Prediction]:
    """The rows that a metric counts: all for the loss, else those with a question."""
    return [each for each in predictions if name == "loss" or each.question]


def _columns(predictions: Sequence[Prediction], name: str) -> np.ndarray:
    """What `_statistic` sums, [rows, k]."""
    rows = _scored(predictions, name)
    if name == "loss":
        return np.array([[each.loss, each.tokens] for each in rows], np.float64)
    if name == "macro_f1":
        return _hits(
            [label(each.reference) for each in rows], [label(each.answer) for each in rows]
        )
    return np.array([[each.scores[name], 1] for each in rows], np.float64)


def _statistic(name: str) -> Callable[[np.ndarray], np.ndarray]:
    return _macro if name == "macro_f1" else _mean


def _mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0] / np.where(totals[..., 1] == 0, np.nan, totals[..., 1])


def _hits(references: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Hits, answered and due of each label of the references, [rows, 3 x labels]."""
    labels = np.array(sorted(set(references)))
    due = np.array(references)[:, None] == labels
    found = np.array(answers)[:, None] == labels
    return np.concatenate([due & found, found, due], axis=1).astype(np.float64)


def _macro(totals: np.ndarray) -> np.ndarray:
    """Of a draw, over the labels that are due in it."""
    hits, answered, due = np.split(totals, 3, axis=-1)
    f1 = 2 * hits / np.where(due > 0, answered + due, np.nan)
    return np.nanmean(f1, axis=-1)


def _summary_of_part(rows: Sequence[Prediction]) -> dict[str, float]:
    found: dict[str, float] = {"rows": len(rows), "loss": rounded(token_loss(rows))}
    asked = [each for each in rows if each.question]
    for name in main_names(rows)[1:]:
        found[name] = rounded(np.mean([each.scores[name] for each in asked]))
    return found


def rounded(value: float | None) -> float | None:
    """To DIGITS; None for what there is not."""
    return None if value is None or value != value else round(float(value), DIGITS)
