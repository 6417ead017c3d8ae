"""Runs compared with the first on the rows that both have."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stages.evaluate.intervals import Interval, holm, mcnemar
from stages.evaluate.metrics import (
    LOWER_IS_BETTER,
    difference,
    main_name,
    measure,
    names,
    score_names,
)
from stages.evaluate.predictions import Prediction
from tools.compare.reading import Run


@dataclass(frozen=True)
class Change:
    """One metric of two runs on the same rows: `interval` is of second - first.

    wins, ties and losses count rows, from the second run's side; None for what no row has alone.
    """

    first: float
    second: float
    interval: Interval
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


@dataclass(frozen=True)
class Pair:
    """What was found between two runs."""

    first: str
    second: str
    rows: int
    groups: int
    left_out: int
    metric: str
    changes: dict[str, Change]
    mcnemar: dict[str, tuple[int, int, float]]
    differing: list[tuple[Prediction, Prediction]]
    notes: list[str] = field(default_factory=list)
    corrected_p: float | None = None

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not enough evidence`: of the second, by the metric that decides."""
        interval = self.changes[self.metric].interval
        if self.corrected_p is not None and self.corrected_p > 0.05:
            return "not enough evidence"
        return interval.verdict(self.metric not in LOWER_IS_BETTER)

    @property
    def rows_needed(self) -> int | None:
        """Rows that would show a true difference of this size four times in five."""
        needed = self.changes[self.metric].interval.groups_needed(self.groups)
        return None if needed is None else round(needed * self.rows / self.groups)


def compare_runs(
    runs: Sequence[Run], *, metric: str | None, anyway: bool, samples: int, seed: int
) -> list[Pair]:
    """Every other run against the first; the p values of several corrected for their number."""
    pairs = [
        compare_two(runs[0], other, metric=metric, anyway=anyway, samples=samples, seed=seed)
        for other in runs[1:]
    ]
    if len(pairs) == 1:
        return pairs
    corrected = holm([pair.changes[pair.metric].interval.p for pair in pairs])
    return [replace(pair, corrected_p=p) for pair, p in zip(pairs, corrected, strict=True)]


def compare_two(
    first: Run, second: Run, *, metric: str | None, anyway: bool, samples: int, seed: int
) -> Pair:
    """Raises ValueError where the rows or the prompt differ and `anyway` was not said."""
    one, two, notes = shared_rows(first, second, anyway)
    shared = [name for name in names(one) if name in names(two)]
    if [each.tokens for each in one] != [each.tokens for each in two]:
        shared.remove("loss")
        notes.append("the loss is left out: the answers have other tokens (another tokenizer)")
    decides = metric or main_name(one)
    if decides not in shared:
        raise ValueError(f"{decides} is no metric of both; there is {', '.join(shared) or 'none'}")
    draws = {"samples": samples, "seed": seed}
    changes = {
        name: _change(one, two, name, difference(one, two, name, **draws)) for name in shared
    }
    groups = len({each.group or each.document or each.id for each in one})
    rights = [name for name in ("exact_match", "accuracy") if name in shared]
    return Pair(
        first=first.name,
        second=second.name,
        rows=len(one),
        groups=groups,
        left_out=len(first.predictions) + len(second.predictions) - 2 * len(one),
        metric=decides,
        changes=changes,
        mcnemar={name: mcnemar(_scores(one, name), _scores(two, name)) for name in rights},
        differing=_most_different(one, two, decides),
        notes=notes,
    )


def shared_rows(
    first: Run, second: Run, anyway: bool
) -> tuple[list[Prediction], list[Prediction], list[str]]:
    """The rows of the same question and reference, and what differs between the runs."""
    there = {_key(*each): each[1] for each in _numbered(second.predictions)}
    both = [
        (prediction, there[key])
        for number, prediction in _numbered(first.predictions)
        if (key := _key(number, prediction)) in there
    ]
    if not both:
        raise ValueError(f"{first.name} and {second.name} have no test row in common")
    one, two = (list(each) for each in zip(*both, strict=True))
    problems = _problems(first, second, one, two)
    if problems and not anyway:
        raise ValueError(
            f"{first.name} and {second.name} do not compare: {'; '.join(problems)}. "
            "--anyway compares the rows that both have"
        )
    return one, two, problems


def _problems(
    first: Run, second: Run, one: Sequence[Prediction], two: Sequence[Prediction]
) -> list[str]:
    found = []
    counts = len(first.predictions), len(second.predictions)
    if max(counts) > len(one):
        found.append(
            f"the test rows differ: {counts[0]} and {counts[1]}, of which {len(one)} are the same"
        )
    if changed := sum(a.prompt != b.prompt for a, b in zip(one, two, strict=True)):
        parts = [key for key in first.asked if first.asked[key] != second.asked[key]]
        why = f" ({', '.join(parts)} in params.yaml)" if parts else ""
        found.append(f"the prompt differs in {changed} rows{why}")
    return found


def _numbered(predictions: Sequence[Prediction]) -> list[tuple[int, Prediction]]:
    """Each with its number among those of the same id: pieces of a document may share it."""
    seen: Counter[str] = Counter()
    numbered = []
    for each in predictions:
        numbered.append((seen[each.id], each))
        seen[each.id] += 1
    return numbered


def _key(number: int, each: Prediction) -> tuple:
    return each.id, number, each.question, each.reference


def _change(
    one: Sequence[Prediction], two: Sequence[Prediction], name: str, interval: Interval
) -> Change:
    values = (measure(each, name, 1, 0).value for each in (one, two))
    if name == "macro_f1":
        return Change(*values, interval)
    sign = -1 if name in LOWER_IS_BETTER else 1
    gains = [sign * (b - a) for a, b in zip(_scores(one, name), _scores(two, name), strict=True)]
    wins, losses = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    return Change(*values, interval, wins, len(gains) - wins - losses, losses)


def _scores(predictions: Sequence[Prediction], name: str) -> list[float]:
    """A metric by row; the loss by token."""
    if name == "loss":
        return [each.loss / each.tokens for each in predictions]
    return [each.scores[name] for each in predictions if each.question]


def _most_different(
    one: Sequence[Prediction], two: Sequence[Prediction], name: str
) -> list[tuple[Prediction, Prediction]]:
    """The questions answered differently, by how far their scores are apart."""
    name = name if name in score_names(one) else (["rougeL", "token_f1"] + score_names(one))[0]
    by = name if name in score_names(one) else "loss"
    apart = [
        (abs(_row_score(a, by) - _row_score(b, by)), at)
        for at, (a, b) in enumerate(zip(one, two, strict=True))
        if a.answer != b.answer
    ]
    order = sorted(apart, key=lambda each: (-each[0], each[1]))
    return [(one[at], two[at]) for _, at in order]


def _row_score(each: Prediction, name: str) -> float:
    return each.loss / each.tokens if name == "loss" else each.scores[name]
