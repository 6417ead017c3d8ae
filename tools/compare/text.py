"""A comparison for the terminal and for programs."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from stages.evaluate.metrics import LOWER_IS_BETTER
from stages.evaluate.predictions import Prediction
from stages.evaluate.report import said
from tools.compare.pairing import Change, Pair

WIDTH = 100


def sentence(pair: Pair) -> str:
    """The verdict: better, worse, or not enough evidence and how many rows it would take."""
    change = pair.changes[pair.metric]
    numbers = f"{pair.metric} {change.second:.4f} against {change.first:.4f}, {_interval(change)}"
    if pair.verdict != "not enough evidence":
        return f"{pair.second} is {pair.verdict} than {pair.first}: {numbers}."
    return (
        f"Not enough evidence that {pair.second} and {pair.first} differ: {numbers}. {_need(pair)}"
    )


def as_text(pairs: Sequence[Pair], questions: int) -> str:
    """Two runs: table, verdict, questions. More: a ranking, then the verdicts."""
    if len(pairs) > 1:
        return "\n".join([_ranking(pairs), "", *(sentence(pair) for pair in pairs)])
    pair = pairs[0]
    lines = [f"{_rows(pair)}; differences are {pair.second} - {pair.first}.", ""]
    lines += [f"note: {note}" for note in pair.notes] + [""] * bool(pair.notes)
    lines += [_table(pair), *_mcnemar(pair), "", sentence(pair)]
    for shown in pair.differing[:questions]:
        lines += ["", *_side_by_side(pair, *shown)]
    return "\n".join(lines)


def as_json(pairs: Sequence[Pair], questions: int) -> str:
    """All that was found, and the first questions."""
    found = []
    for pair in pairs:
        shown = pair.differing[:questions]
        entry = {**asdict(pair), "verdict": pair.verdict, "rows_needed": pair.rows_needed}
        entry["sentence"] = sentence(pair)
        entry["differing"] = [[asdict(each) for each in both] for both in shown]
        entry["mcnemar"] = {
            name: {"only_first": a, "only_second": b, "p": p}
            for name, (a, b, p) in pair.mcnemar.items()
        }
        found.append(entry)
    return json.dumps(found, indent=2, ensure_ascii=False)


def ranked(pairs: Sequence[Pair]) -> list[tuple[str, float, Pair | None]]:
    """The runs by the metric that decides, the best first; the first run has no pair."""
    metric = pairs[0].metric
    entries = [(pair.second, pair.changes[metric].second, pair) for pair in pairs]
    entries.append((pairs[0].first, pairs[0].changes[metric].first, None))
    return sorted(entries, key=lambda each: each[1], reverse=metric not in LOWER_IS_BETTER)


def cells(pair: Pair) -> list[list[str]]:
    """The table of metrics, with its head."""
    lines = [["", pair.first, pair.second, "difference", "95 % interval", "p", "wins", "ties",
              "losses"]]  # fmt: skip
    for name, change in pair.changes.items():
        low, high, p = change.interval.low, change.interval.high, change.interval.p
        bounds = "too few rows" if low is None else f"{low:+.4f} to {high:+.4f}"
        counts = ["" if n is None else str(n) for n in (change.wins, change.ties, change.losses)]
        values = [f"{change.first:.4f}", f"{change.second:.4f}", f"{change.interval.value:+.4f}"]
        lines.append([name, *values, bounds, "" if p is None else f"{p:.4f}", *counts])
    return lines


def ranking_cells(pairs: Sequence[Pair]) -> list[list[str]]:
    """The table of several runs, with its head."""
    lines = [["", pairs[0].metric, f"- {pairs[0].first}", "95 % interval", "p (Holm)", "rows", ""]]
    for name, value, pair in ranked(pairs):
        if pair is None:
            lines.append([name, f"{value:.4f}", "", "", "", str(pairs[0].rows), "compared with"])
            continue
        each = pair.changes[pair.metric].interval
        bounds = "too few rows" if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}"
        p = "" if pair.corrected_p is None else f"{pair.corrected_p:.4f}"
        lines.append(
            [name, f"{value:.4f}", f"{each.value:+.4f}", bounds, p, str(pair.rows), pair.verdict]
        )
    return lines


def _ranking(pairs: Sequence[Pair]) -> str:
    notes = [f"note: {pair.second}: {note}" for pair in pairs for note in pair.notes]
    about = f"Ranked by {pairs[0].metric}; intervals are paired, p corrected for {len(pairs)} runs."
    return "\n".join([about, *notes, "", _aligned(ranking_cells(pairs))])


def _rows(pair: Pair) -> str:
    text = f"{pair.rows} test rows of both in {pair.groups} independent groups"
    return f"{text} ({pair.left_out} rows of one only are left out)" if pair.left_out else text


def _table(pair: Pair) -> str:
    return _aligned(cells(pair))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if at in (0, len(widths)) else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _mcnemar(pair: Pair) -> list[str]:
    return [
        f"McNemar, {name}: {pair.first} alone is right in {a}, {pair.second} alone in {b}; "
        f"p {p:.4f}"
        for name, (a, b, p) in pair.mcnemar.items()
    ]


def _interval(change: Change) -> str:
    each = change.interval
    if each.low is None:
        return f"{each.value:+.4f}, too few independent rows for an interval"
    return f"{each.value:+.4f} (95 % interval {each.low:+.4f} to {each.high:+.4f})"


def _need(pair: Pair) -> str:
    if pair.changes[pair.metric].interval.error is None:
        return "Raise evaluate.max_rows or preprocess.test_share."
    if pair.rows_needed is None:
        return "They are equal on every row."
    needed = float(f"{pair.rows_needed:.2g}")
    return f"A difference of this size would take about {needed:,.0f} rows to see."


def _side_by_side(pair: Pair, one: Prediction, two: Prediction) -> list[str]:
    names = [pair.first, pair.second]
    width = max(map(len, ["question", "reference", *names]))
    texts = [("question", one.question), ("reference", one.reference)]
    texts += list(zip(names, (said(one), said(two)), strict=True))
    return [
        f"{name:{width}}  {textwrap.shorten(text, WIDTH - width, placeholder=' …')}"
        for name, text in texts
    ]
