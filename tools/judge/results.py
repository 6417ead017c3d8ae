"""What the judge's replies say of two runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.evaluate.intervals import Bootstrap
from stages.evaluate.predictions import Prediction
from tools.judge.asking import Request
from tools.judge.prompt import verdict
from tools.judge.replies import Replies

# What the second run gets of a row.
POINTS = {"win": 1.0, "tie": 0.5, "loss": 0.0}
_SIDES = {"ab": {"a": "loss", "b": "win"}, "ba": {"a": "win", "b": "loss"}}


@dataclass(frozen=True)
class Outcome:
    """A row: `result` is win, tie or loss of the second run, None where a reply says nothing.

    `verdicts` are those of the orders ab and ba as given; empty where the answers are the same.
    """

    result: str | None
    verdicts: tuple[str | None, ...] = ()

    @property
    def disagrees(self) -> bool:
        """Whether the two orders were judged, and not alike."""
        return len(set(_results(self.verdicts))) > 1 and None not in self.verdicts


def judge_row(requests: Sequence[Request], replies: Replies) -> Outcome:
    """One row from both orders: where they disagree, a tie."""
    if not requests:
        return Outcome("tie")
    verdicts = tuple(None if replies[r.key].refused else verdict(replies[r.key].text)
                     for r in requests)  # fmt: skip
    if None in verdicts:
        return Outcome(None, verdicts)
    one, two = _results(verdicts)
    return Outcome(one if one == two else "tie", verdicts)


def _results(verdicts: Sequence[str | None]) -> list[str]:
    """Win, tie or loss of the second run, by each order alone."""
    orders = zip(_SIDES.values(), verdicts, strict=False)
    return [sides.get(each, "tie") for sides, each in orders]


def summarize(
    rows: Sequence[Prediction],
    outcomes: Sequence[Outcome],
    *,
    samples: int,
    seed: int,
) -> dict[str, Any]:
    """Counts, win rate (a tie is half a win) with its interval, and how the judge behaved.

    Rows without a verdict of both orders are counted and left out. The bootstrap draws groups.
    """
    judged = [(row, each) for row, each in zip(rows, outcomes, strict=True) if each.result]
    count = {name: sum(each.result == name for _, each in judged) for name in POINTS}
    both = [each for _, each in judged if each.verdicts]
    disagreed = [each for each in both if each.disagrees]
    return {
        "rows": len(rows),
        "judged": len(judged),
        "unjudged": len(rows) - len(judged),
        "wins": count["win"],
        "ties": count["tie"],
        "losses": count["loss"],
        "same_answer": sum(not each.verdicts for each in outcomes),
        **_win_rate(judged, samples, seed),
        "disagreements": len(disagreed),
        "position_bias": round(len(disagreed) / len(both), 4) if both else None,
        "prefers_first": sum(each.verdicts == ("a", "a") for each in disagreed),
        "prefers_second": sum(each.verdicts == ("b", "b") for each in disagreed),
    }


def _win_rate(judged: Sequence[tuple[Prediction, Outcome]], samples: int, seed: int) -> dict:
    """The rate, its bounds and the p of its being one half; null where there is too little."""
    if not judged:
        return dict.fromkeys(("win_rate", "win_rate_low", "win_rate_high", "p"), None) | {
            "groups": 0
        }
    groups = [row.group or row.document or row.id for row, _ in judged]
    draws = Bootstrap(groups, samples=samples, seed=seed)
    each = draws.mean([POINTS[outcome.result] - 0.5 for _, outcome in judged])
    low, high = (
        None if bound is None else round(0.5 + bound, 4) for bound in (each.low, each.high)
    )
    return {
        "groups": draws.groups,
        "win_rate": round(0.5 + each.value, 4),
        "win_rate_low": low,
        "win_rate_high": high,
        "p": None if each.p is None else round(each.p, 4),
    }


def count_replies(requests: Sequence[Request], replies: Replies) -> dict[str, int]:
    """Replies that refuse, say no verdict, or were cut off; the tokens that all of them took."""
    # Pieces with the same texts are one request.
    used = [replies[key] for key in dict.fromkeys(each.key for each in requests)]
    silent = [each for each in used if not each.refused and verdict(each.text) is None]
    return {
        "replies": len(used),
        "refused": sum(each.refused for each in used),
        "unparseable": len(silent),
        "cut_off": sum(each.finish == "length" for each in silent),
        "prompt_tokens": sum(each.prompt_tokens for each in used),
        "completion_tokens": sum(each.completion_tokens for each in used),
    }


def as_text(metrics: Mapping[str, Any]) -> str:
    """The verdict first, then how far the judge is to be believed."""
    first, second = metrics["first"], metrics["second"]
    lines = [
        f"{second} against {first}, judged by {metrics['model']}: {metrics['wins']} wins, "
        f"{metrics['ties']} ties, {metrics['losses']} losses in {metrics['judged']} rows "
        f"({metrics['groups']} independent groups)",
        _sentence(metrics),
    ]
    if metrics["position_bias"] is not None:
        lines.append(
            f"The two orders disagree in {metrics['disagreements']} rows "
            f"({metrics['position_bias']:.0%}), which are ties: {metrics['prefers_first']} times "
            f"whichever is shown first was preferred, {metrics['prefers_second']} times the second."
        )
    if metrics["unjudged"]:
        lines.append(
            f"{metrics['unjudged']} rows are left out: {metrics['refused']} replies refuse, "
            f"{metrics['unparseable']} give no verdict ({metrics['cut_off']} of them cut off)."
        )
    lines.append(
        f"{metrics['replies']} replies took {metrics['prompt_tokens']:,} tokens of prompts and "
        f"{metrics['completion_tokens']:,} of replies, as the server counts."
    )
    return "\n".join(lines)


def _sentence(metrics: Mapping[str, Any]) -> str:
    rate, low, high = (metrics[name] for name in ("win_rate", "win_rate_low", "win_rate_high"))
    if rate is None:
        return "No row was judged: see the replies in the file."
    if low is None:
        return f"Win rate {rate:.3f}; too few independent rows for an interval."
    verdict = "not enough evidence"
    if not low <= 0.5 <= high:
        verdict = "preferred" if rate > 0.5 else "not preferred"
    name = metrics["second"]
    return f"Win rate {rate:.3f} (95 % interval {low:.3f} to {high:.3f}): {name}: {verdict}."
