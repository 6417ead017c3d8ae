"""What the parts of a plan hand to each other."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One remark on a key of params.yaml (or on what the run meets outside of it)."""

    key: str
    value: Any
    message: str

    def __str__(self) -> str:
        return f"{self.key}{'' if self.value is None else f' {self.value}'}: {self.message}"


@dataclass(frozen=True)
class Rows:
    """One split: how many examples, tokens in all, tokens of the longest, supervised tokens.

    `longest` is a bound where the examples are not known; `tokens` and `supervised` are None there.
    """

    rows: int
    tokens: int | None
    longest: int
    supervised: int | None = None

    @property
    def mean(self) -> float | None:
        """Tokens of an example."""
        return self.tokens / self.rows if self.tokens is not None and self.rows else None


def listed(names: Iterable[str], most: int = 4) -> str:
    """`a, b, c and 2 more`."""
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def spell(seconds: float) -> str:
    """A duration in a unit that fits it: 45 s, 4.0 min, 2.3 h, 12.5 days."""
    for unit, size, least in (("days", 86400, 2), ("h", 3600, 1), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
