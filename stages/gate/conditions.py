"""What `evaluate.gate` says, read safely, and whether it holds. Nothing heavy.

A condition is one comparison of two sums, differences, products or quotients of numbers and of
names of metrics: `loss <= 0.98 * base.loss`. It is parsed with Python's grammar and only these
forms are evaluated; nothing else can run.
"""

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_COMPARE: dict[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Outcome:
    """A condition, whether it holds, what was found for it, and why it could not be judged."""

    condition: str
    holds: bool
    found: str = ""
    reason: str = ""


def judge(conditions: Sequence[str], tuned: dict, base: dict) -> list[Outcome]:
    """Each condition's outcome. One that has no value to compare does not hold, and says why.

    Raises ValueError, naming all of them, for conditions that are none or name no metric.
    """
    problems, outcomes = [], []
    for condition in conditions:
        try:
            outcomes.append(_judge(condition, tuned, base))
        except ValueError as error:
            problems.append(f"  evaluate.gate has {condition!r}: {error}")
    if problems:
        raise ValueError(f"{len(problems)} condition(s) cannot be read:\n" + "\n".join(problems))
    return outcomes


def _judge(condition: str, tuned: dict, base: dict) -> Outcome:
    try:
        node = ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError("it is no comparison such as loss <= 0.98 * base.loss") from None
    if not isinstance(node, ast.Compare) or len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
        raise ValueError("write one comparison with < <= > >= == or !=")
    names: dict[str, float | None] = {}
    left, right = (_value(side, tuned, base, names) for side in (node.left, node.comparators[0]))
    found = ", ".join(f"{name} = {_show(value)}" for name, value in names.items())
    if missing := [name for name, value in names.items() if value is None]:
        reason = f"{', '.join(missing)} has no value: too few independent rows for an interval"
        return Outcome(condition, False, found, reason)
    if left is None or right is None:
        return Outcome(condition, False, found, "it divides by 0")
    return Outcome(condition, _COMPARE[type(node.ops[0])](left, right), found)


def _value(node: ast.AST, tuned: dict, base: dict, names: dict) -> float | None:
    """A side's value; None where a part of it has none. Notes the names that it met."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if not math.isfinite(node.value):
            raise ValueError("a number is too large")
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, tuned, base, names)
        return None if value is None else -value
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        sides = [_value(side, tuned, base, names) for side in (node.left, node.right)]
        if None in sides or (isinstance(node.op, ast.Div) and not sides[1]):
            return None
        return _ARITHMETIC[type(node.op)](*sides)
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        name = ast.unparse(node)
        names[name] = find(_path(node), tuned, base)
        return names[name]
    raise ValueError(f"{ast.unparse(node)} is neither a number, a metric, nor + - * / of them")


def _path(node: ast.AST) -> list[str]:
    """`source["a b"].loss` as [source, a b, loss]."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_path(node.value), node.attr]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return [*_path(node.value), str(node.slice.value)]
    raise ValueError(f"{ast.unparse(node)} is no name of a metric")


def find(path: Sequence[str], tuned: dict, base: dict) -> float | None:
    """A metric's value; `base.` before it takes the base model's.

    NAME.low and NAME.high are the bounds of its interval, those of diff.NAME and of over_trivial
    too. Raises ValueError for a name that there is not, naming those that are close.
    """
    metrics = tuned
    if path[0] in ("base", "tuned"):
        metrics, path = (base if path[0] == "base" else tuned), path[1:]
    if len(path) > 1 and path[-1] in ("low", "high"):
        *inner, bound = path
        for other in ([*inner[:-1], f"{inner[-1]}_{bound}"], ["interval", *inner, bound]):
            if (value := _look(metrics, other)) is not _ABSENT:
                return value
    value = _look(metrics, path)
    if value is _ABSENT or isinstance(value, dict | list | str):
        raise ValueError(f"there is no metric {'.'.join(path)}; there is {_known(metrics)}")
    return value


_ABSENT = object()


def _look(metrics: dict, path: Sequence[str]) -> object:
    found: object = metrics
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return _ABSENT
        found = found[name]
    return found if path else _ABSENT


def _known(metrics: dict) -> str:
    """The names of one part, and of the parts that hold more."""
    return ", ".join(f"{k}.…" if isinstance(v, dict) else k for k, v in sorted(metrics.items()))


def _show(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")
