"""Markdown of values and tables, and the names that metrics have in them."""

from collections.abc import Sequence
from typing import Any

from stages.evaluate.report import CHARTED

UNITS = {"loss": "nats per token"}


def metric_name(metric: str) -> str:
    """A metric as the charts name it, with its unit."""
    unit = f", {UNITS[metric]}" if metric in UNITS else ""
    return f"{CHARTED.get(metric, metric.replace('_', ' '))}{unit}"


def show(value: Any) -> str:
    """A value as it is in its file; whole numbers with thousands separated."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    """One line that cannot end its cell."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
