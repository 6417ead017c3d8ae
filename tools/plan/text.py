"""A plan for the terminal: what is odd first, then one block for each question."""

import textwrap
from collections.abc import Iterator, Sequence

from tools.plan.findings import Finding, spell
from tools.plan.memory import Held
from tools.plan.plan import Plan

WIDTH, MARGIN = 100, 10
SMALL = 5_000_000  # bytes, which a table of GB does not show


def as_text(plan: Plan) -> str:
    """All of it, at most 100 columns wide."""
    lines = [f"{plan.file}: {plan.name}, on {'a CPU' if plan.device == 'cpu' else 'a GPU'}"]
    lines += _remarks("warnings", plan.warnings, "none")
    if plan.idle:
        lines += _remarks("without effect", plan.idle)
    for name, block in (
        ("data", _data(plan)),
        ("steps", _steps(plan)),
        ("model", _model(plan)),
        ("memory", _memory(plan)),
        ("time", _time(plan)),
        ("disk", _disk(plan)),
        ("access", _access(plan)),
    ):
        found = list(block)
        if found:
            lines += ["", *_block(name, found)]
    return "\n".join(lines)


def _remarks(title: str, found: Sequence[Finding], none: str = "") -> list[str]:
    if not found:
        return ["", f"{title}: {none}"]
    lines = ["", title]
    for each in found:
        lines += textwrap.wrap(
            str(each),
            WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _block(name: str, lines: Sequence[str]) -> list[str]:
    """The name in the margin, beside the lines; tables (with two spaces in them) stay as they
    are."""
    found: list[str] = []
    for line in lines:
        whole = "  " in line or len(line) <= WIDTH - MARGIN
        found += [line] if whole else textwrap.wrap(line, WIDTH - MARGIN, break_on_hyphens=False)
    heads = [name, *[""] * (len(found) - 1)]
    return [f"{head:{MARGIN}}{line}".rstrip() for head, line in zip(heads, found, strict=True)]


def _data(plan: Plan) -> Iterator[str]:
    data = plan.data
    for name, rows in (("train", data.train), ("validation", data.validation)):
        if rows is None:
            continue
        mean = f" of {rows.mean:.0f} tokens" if rows.mean is not None else ""
        tokens = f", {rows.tokens:,} in all" if rows.tokens is not None else ""
        bound = "the longest" if data.basis == "prepared" else "none longer than"
        yield f"{name}: {rows.rows:,} rows{mean}{tokens}, {bound} {rows.longest:,}"
    yield data.where


def _steps(plan: Plan) -> Iterator[str]:
    schedule = plan.schedule
    several = f" on {schedule.processes} processes" if schedule.processes > 1 else ""
    tokens = (
        f"about {schedule.tokens_per_step:,.0f} tokens"
        if schedule.tokens_per_step
        else f"at most {schedule.most_tokens_per_step:,} tokens"
    )
    steps = (
        "unknown: as many as the rows ask for" if schedule.steps is None else f"{schedule.steps:,}"
    )
    yield f"{steps} of {schedule.examples:,} examples{several}, {tokens} each"
    if schedule.epochs is not None:
        yield f"{schedule.epochs:,.{0 if schedule.epochs > 20 else 2}f} passes over the rows"
    if schedule.steps is not None:
        yield (f"{schedule.evaluations:,} evaluations, {schedule.warmup_steps:,} steps of warm-up")


def _model(plan: Plan) -> Iterator[str]:
    if plan.weights is None:
        yield f"its shape is {plan.base}"
        return
    share = plan.trained / plan.weights
    yield (
        f"{plan.weights:,} weights, {plan.trained:,} of the adapter ({share:.2%}), by {plan.base}"
    )


def _memory(plan: Plan) -> Iterator[str]:
    if not plan.held:
        yield "unknown, because the model's shape is"
        return
    if len(plan.held) == 1:
        yield from _parts(plan.held[0])
        return
    yield f"{'device':>9}  {'needs':>8}  {'weights':12}  passes"
    for each in plan.held:
        if each.parts is None:
            yield f"{each.device:>9}  {'-':>8}  does not fit"
            continue
        way = "dequantised" if each.dequantized else "4 bits"
        fits = "" if each.problem is None else "  does not fit"
        yield f"{each.device:>9}  {each.total / 1e9:5.1f} GB  {way:12}  {each.fit}{fits}"
    yield "of an empty device, less a reserve of 6 %; --device shows the parts"


def _parts(held: Held) -> Iterator[str]:
    if held.parts is None:
        yield f"{held.device}: {held.problem}"
        return
    way = "dequantised" if held.dequantized else "in 4 bits"
    way += " and float8" if held.float8 else ""
    way += " (dequantised they leave too little room)" if held.given_up else ""
    yield f"{held.device}: weights {way}, passes of {held.fit}"
    words = {
        "weights": "weights, frozen",
        "adapter": "adapter and its gradient, float32",
        "optimizer": "optimizer's states",
        "activations": "activations of a pass",
        "logits": "logits and loss",
        "workspace": "workspace: unpacked weights",
    }
    for name, word in words.items():
        yield f"  {word:36}{getattr(held.parts, name) / 1e9:7.2f} GB"
    if held.parts.loading:
        yield f"  {'while loading: all weights':36}{held.parts.loading / 1e9:7.2f} GB"
    yield f"  {'peak, estimate':36}{held.total / 1e9:7.2f} GB of {held.available / 1e9:.1f}"
    if held.reserve:
        yield f"  {'reserve, not used':36}{held.reserve / 1e9:7.2f} GB"
    else:
        yield "the run estimates nothing on a CPU; python and its libraries come on top"
    if held.evaluation:
        yield f"baseline and evaluate: weights {held.evaluation}"


def _time(plan: Plan) -> Iterator[str]:
    duration = plan.duration
    if plan.done:
        yield (
            f"this very run took {spell(plan.done['duration_s'])} on {plan.done['hardware']}, the "
            f"whole stage, and {plan.done['peak_memory_gb']} GB at the peak (metrics/cost.json)"
        )
    if duration is None:
        yield plan.no_duration
        return
    total, most = duration.total_s, "at most " if duration.at_most else "about "
    if total is None:
        yield f"{duration.tokens_per_s:,.0f} tokens/s; the steps are not known"
    else:
        parts = [f"training {spell(duration.train_s)}"]
        if duration.evaluation_s is not None:
            parts.append(f"evaluations {spell(duration.evaluation_s)}")
        if duration.warmup_s:
            parts.append(f"loading and warm-up {spell(duration.warmup_s)}")
        yield f"{most}{spell(total)}: {', '.join(parts)}"
        if plan.device != "cpu":
            hours = plan.hours * plan.schedule.processes
            cost = f": {plan.cost:,.2f} at {plan.price:g} an hour" if plan.price is not None else ""
            yield f"{hours:,.2f} device hours{cost}; baseline and evaluate come on top"
        elif plan.cost is not None:
            yield f"{plan.cost:,.2f} at {plan.price:g} an hour"
    yield f"by {duration.measurement}"
    if duration.scaled:
        yield f"estimate: {'; '.join(duration.scaled)}"


def _disk(plan: Plan) -> Iterator[str]:
    if plan.weights is None:
        yield "of weights and checkpoints unknown, because the model's shape is"
    for item in plan.disk.items:
        if item.size >= SMALL or item.note and not item.size:
            size = f"{item.size / 1e9:8.2f} GB" if item.size else " " * 11
            yield f"  {item.name:32}{size}  {item.note}".rstrip()
    free = plan.disk.free
    total = sum(item.size for item in plan.disk.items) / 1e9
    known = "in all" if plan.weights is not None else "of what is known"
    if len(set(free.values())) == 1:
        yield f"{total:.1f} GB {known}; {free['repository'] / 1e9:.1f} GB free"
    else:
        names = {"repository": "the repository", "base": "the base's cache", "cache": "DVC's cache"}
        places = ", ".join(f"{size / 1e9:.1f} GB for {names[name]}" for name, size in free.items())
        yield f"{total:.1f} GB {known}; free: {places}"


def _access(plan: Plan) -> Iterator[str]:
    for each in plan.access:
        yield f"{each.kind} {each.repository}: {each.message}"
