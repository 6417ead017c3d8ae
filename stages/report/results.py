"""The verdict, the numbers it rests on, and their charts."""

from stages.evaluate.intervals import Interval
from stages.evaluate.report import CHARTED, charted
from stages.gate.conditions import judge
from stages.report.charts import draw, read_charts
from stages.report.contents import Contents
from stages.report.elements import Html, card, element, fold, number, share, signed, table

LOWER_IS_BETTER = ("loss",)


def verdict(run: Contents) -> Html:
    """One word and one sentence, by accuracy where answers are labels, else by the loss."""
    main = "accuracy" if "accuracy" in run.tuned["interval"] else "loss"
    change, low, high = _change(run, main)
    word = Interval(change, low, high).verdict(main not in LOWER_IS_BETTER)
    interval = (
        f"95 % interval {signed(low)} to {signed(high)}"
        if low is not None
        else f"{run.tuned['groups']} independent rows are too few for an interval"
    )
    sentence = (
        f"On {number(run.tuned['rows'])} held-out rows tuning takes {_label(main)} from "
        f"{number(run.base[main])} to {number(run.tuned[main])}: {signed(change)} ({interval})."
    )
    return element(
        "div",
        element("h1", word[0].upper() + word[1:], class_=f"verdict {word.split()[0]}"),
        element("p", sentence, class_="lead"),
        element("div", *_figures(run), class_="figures"),
    )


def _figures(run: Contents) -> list[Html]:
    """The few numbers that a reader takes away."""
    tuned, found = run.tuned, []
    for name in ("accuracy", "macro_f1", "rougeL", "loss", "perplexity"):
        if name in tuned:
            found.append((_label(name), number(tuned[name]), f"base {number(run.base[name])}"))
    if "stop_rate" in tuned:
        base = share(run.base["stop_rate"])
        found.append(("answers that end", share(tuned["stop_rate"]), f"base {base}"))
    if lost := tuned.get("forgotten"):
        bounds = f"{signed(lost['low'])} to {signed(lost['high'])}"
        found.append(("forgotten, nats a token", signed(lost["loss"]), bounds))
    outcomes = judge(run.params.evaluate.gate, tuned, run.base)
    if outcomes:
        holds = sum(each.holds for each in outcomes)
        state = "passed" if holds == len(outcomes) else "failed"
        found.append(("gate", state, f"{holds} of {len(outcomes)} conditions"))
    return [
        element("div", element("span", name), element("b", value), element("small", below))
        for name, value, below in found
    ]


def metrics(run: Contents) -> Html:
    """Each metric of base, tuned and the trivial answer, and what tuning changed."""
    trivial, least = run.tuned.get("trivial", {}), run.tuned.get("detectable", {})
    rows = []
    for name in charted(run.tuned["interval"]):
        change, low, high = _change(run, name)
        interval = f"{signed(low)} to {signed(high)}" if low is not None else "too few rows"
        word = Interval(change, low, high).verdict(name not in LOWER_IS_BETTER)
        values = (run.base.get(name), run.tuned[name], trivial.get(name))
        rows.append(
            [_label(name), *map(number, values), signed(change), interval, number(least.get(name)),
             element("span", word, class_=f"chip {word.split()[0]}")]
        )  # fmt: skip
    head = ["", "base", "tuned", "trivial", "tuned − base", "95 % interval", "detectable", ""]
    note = (
        f"{number(run.tuned['rows'])} test rows in {number(run.tuned['groups'])} groups. "
        "Intervals: paired bootstrap over groups. Trivial: the most frequent label, or a "
        "question's first words. Detectable: the smallest true difference that this test set "
        "shows four times in five."
    )
    return card("Base and tuned on the same rows", table(head, rows, "tnnnnnn"), note=note)


def gate(run: Contents) -> Html:
    """What was asked of the result, and what was found."""
    outcomes = judge(run.params.evaluate.gate, run.tuned, run.base)
    if not outcomes:
        return Html()
    rows = [
        [_chip(each.holds), element("code", each.condition), f"{each.found} {each.reason}".strip()]
        for each in outcomes
    ]
    return card("Gate", table(["", "expected", "found"], rows))


def charts(run: Contents, section: str) -> list[Html]:
    """The charts of dvc.yaml that belong to a section of the page."""
    found = [each for each in read_charts(run.root) if each["place"].get("section") == section]
    return [
        card(
            each["title"],
            element("div", Html(draw(each["spec"])), class_="chart"),
            half=bool(each["place"].get("half")),
        )
        for each in found
    ]


def parts(run: Contents) -> Html:
    """Sources and labels with their numbers, beside the chart of what changed."""
    rows = [
        [by, name, number(each["rows"]), *_part(run, by, name)]
        for by in ("source", "label")
        for name, each in run.tuned.get(by, {}).items()
    ]
    head = ["", "part", "rows", "loss, base", "loss, tuned", "tuned − base", "95 % interval"]
    if not rows:
        return Html()
    listed = fold(f"{len(rows)} parts", table(head, rows, "ttnnnnn"))
    return card("By source and label", listed)


def behaviour(run: Contents) -> Html:
    """How the answers are written."""
    names = {
        "stop_rate": ("end by themselves", share),
        "empty": ("are empty", share),
        "repeated": ("repeated 4-grams", share),
        "copied": ("words copied from the question in runs of three", share),
        "length": ("tokens, mean", lambda value: number(value, 1)),
        "length_ratio": ("words for each word of the references", number),
    }
    rows = [
        [label, show(run.base.get(name)), show(run.tuned.get(name))]
        for name, (label, show) in names.items()
        if name in run.tuned
    ]
    if not rows:
        return Html()
    copied = share(run.tuned["reference_copied"])
    note = f"The references copy {copied} of their words in such runs."
    return card("How they answer", table(["answers", "base", "tuned"], rows, "tnn"), note=note)


def _part(run: Contents, by: str, name: str) -> list[str]:
    tuned, base = run.tuned[by][name], run.base.get(by, {}).get(name, {})
    change = tuned.get("diff", {})
    low, high = change.get("loss_low"), change.get("loss_high")
    interval = "too few rows" if low is None else f"{signed(low)} to {signed(high)}"
    losses = [number(base.get("loss")), number(tuned["loss"]), signed(change.get("loss"))]
    return [*losses, interval]


def _change(run: Contents, name: str) -> tuple[float, float | None, float | None]:
    change = run.tuned["diff"]
    return change[name], change[f"{name}_low"], change[f"{name}_high"]


def _label(name: str) -> str:
    return CHARTED.get(name, name.replace("_", " "))


def _chip(holds: bool) -> Html:
    word, kind = ("passed", "better") if holds else ("failed", "worse")
    return element("span", word, class_=f"chip {kind}")
