"""What the run gained, what it forgot, and what the figures do not say."""

from typing import Any

from stages.evaluate.report import charted
from tools.card.markdown import metric_name, show, table
from tools.record import METRICS, Record

TUNED, BASELINE = METRICS[3], METRICS[2]
LOWER_IS_BETTER = ("loss",)
ANSWERS = {
    "stop_rate": "answers that end by themselves, share",
    "length": "an answer's length, tokens",
    "empty": "empty answers, share",
    "repeated": "repeated 4-grams, share",
    "copied": "words copied from the question in runs of three, share",
}


def results(record: Record, scored: dict[str, Any] | None) -> str:
    """Base and tuned on the same rows, what was forgotten, and how the exported form compares."""
    rows, groups = (record.value(TUNED, f"/{key}") for key in ("rows", "groups"))
    draws = record.param("evaluate", "evaluate/bootstrap_samples")
    trivial = record.json(TUNED).get("trivial", {})
    head = ["", "base", "tuned", "tuned − base", *(["trivial answer"] if trivial else [])]
    body = [
        [metric_name(metric), *(_scored(record, file, metric) for file in (BASELINE, TUNED)),
         _change(record, "/diff", metric),
         *([show(record.value(TUNED, f"/trivial/{metric}"))] if trivial else [])]
        for metric in charted(record.json(TUNED)["interval"])
    ]  # fmt: skip
    found = [
        "## Results",
        f"On {show(rows)} held-out rows in {show(groups)} independent groups; in brackets 95 % "
        f"intervals (bootstrap over groups, {show(draws)} draws; of differences: paired).",
        table(head, body),
    ]
    if "stop_rate" in record.json(TUNED):
        answers = [
            [name, *(show(record.value(file, f"/{key}")) for file in (BASELINE, TUNED))]
            for key, name in ANSWERS.items()
        ]
        found.append(table(["", "base", "tuned"], answers))
    found += [_forgotten(record), _exported(scored)]
    return "\n\n".join(filter(None, found))


def _forgotten(record: Record) -> str:
    lost = record.json(TUNED).get("forgotten")
    if not lost:
        return ""
    base, tuned = (show(record.value(TUNED, f"/forgotten/{key}")) for key in ("base", "tuned"))
    change = _bounded(record, "/forgotten/loss", "/forgotten/low", "/forgotten/high")
    passages, tokens = (record.value(TUNED, f"/forgotten/{key}") for key in ("passages", "tokens"))
    text = record.param("evaluate", "evaluate/general_text")
    return (
        f"What was forgotten: on a text that has nothing to do with the task ({text}, "
        f"{show(passages)} passages, {show(tokens)} tokens) the loss went from {base} to "
        f"{tuned}: {change} nats per token."
    )


def _exported(scored: dict[str, Any] | None) -> str:
    """What metrics/export-KIND.json says of the exported form."""
    if not scored:
        return ""
    where = f"As exported, on {scored['rows']} of these rows (metrics/export-{scored['kind']}.json)"
    if "gap" not in scored:
        same, begun = scored["same_answers"], scored["same_beginnings"]
        return f"{where}: {same} of the greedy answers are the adapter's, {begun} begin alike."
    gap = scored["gap"]
    bounds = "" if gap["low"] is None else f" [{gap['low']}, {gap['high']}]"
    return (
        f"{where}: a loss of {scored['loss']} where the adapter has {scored['adapter_loss']}, "
        f"a difference of {gap['value']}{bounds} nats per token."
    )


def limits(record: Record) -> str:
    """What the figures do not say."""
    tuned, limit = record.json(TUNED), record.param("preprocess", "preprocess/max_length")
    worse = [
        metric_name(metric)
        for metric in charted(tuned["interval"])
        if not _is_better(tuned["diff"], metric)
    ]
    seen = [
        f"{metric_name(metric)} {show(record.value(TUNED, f'/detectable/{metric}'))}"
        for metric in charted(tuned["interval"])
        if tuned.get("detectable", {}).get(metric) is not None
    ]
    found = [
        "Measured on held-out rows of the sources above only: nothing is known of other tasks, "
        "other languages or other kinds of text.",
        f"Examples are up to {show(limit)} tokens long; longer ones were not seen.",
        "Nobody has tested it for safety, bias or truth, and its answers are not advice.",
        "The base model's limits and licence hold here too, and so do the licences of the data.",
    ]
    if worse:
        found.append(f"Not shown to be better than the base model: {', '.join(worse)}.")
    if seen:
        found.append(f"Differences smaller than these could not be seen: {', '.join(seen)}.")
    return "## Limits\n\n" + "\n".join(f"- {each}" for each in found)


def _scored(record: Record, file: str, metric: str) -> str:
    """A metric with its interval."""
    return _bounded(record, f"/{metric}", f"/interval/{metric}/low", f"/interval/{metric}/high",
                    file=file)  # fmt: skip


def _change(record: Record, at: str, metric: str) -> str:
    return _bounded(record, f"{at}/{metric}", f"{at}/{metric}_low", f"{at}/{metric}_high")


def _bounded(record: Record, value: str, low: str, high: str, file: str = TUNED) -> str:
    bounds = [record.value(file, pointer) for pointer in (low, high)]
    shown = show(record.value(file, value))
    if None in bounds:
        return f"{shown} (too few groups for an interval)"
    return f"{shown} [{show(bounds[0])}, {show(bounds[1])}]"


def _is_better(diff: dict[str, Any], metric: str) -> bool:
    low, high = diff[f"{metric}_low"], diff[f"{metric}_high"]
    if low is None:
        return False
    return high < 0 if metric in LOWER_IS_BETTER else low > 0
