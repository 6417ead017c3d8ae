"""How much of each source goes into training: exact shares, and an order that keeps them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from finetune.params import Params

log = logging.getLogger(__name__)
MANY_USES = 4  # up to which repeated data is about as good as new


@dataclass(frozen=True)
class Share:
    """One source in the mixture, in its unit: `uses` is how often each row is, on average."""

    target: float
    achieved: float
    available: float
    used: float
    uses: float


def choose(
    params: Params, sources: np.ndarray, keys: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, dict[str, Share]]:
    """The training rows of the mixture, and what share each source got.

    Row n is of source `sources[n]` (its place in the sorted names), weighs `weights[n]` (tokens, or
    its part of a document); rows are taken by `keys`, so that adding rows replaces few. Each source
    is within half a row of its target. Returned are row numbers in the order of the rows; a
    repeated row occurs as often as it is repeated.
    Raises ValueError where a source is too small.
    """
    names, target = params.data.names(), _targets(params)
    of = [_ordered(np.flatnonzero(sources == n), keys) for n in range(len(names))]
    available = np.array([weights[rows].sum() for rows in of])
    total = _total(params, names, target, available)
    chosen = [
        _take(rows, weights[rows], share * total) for rows, share in zip(of, target, strict=True)
    ]
    used = np.array([weights[rows].sum() for rows in chosen])
    shares = {
        name: Share(
            target=float(target[n]),
            achieved=float(used[n] / max(used.sum(), 1)),
            available=float(available[n]),
            used=float(used[n]),
            uses=float(used[n] / available[n]) if available[n] else 0.0,
        )
        for n, name in enumerate(names)
    }
    return np.sort(np.concatenate(chosen)), shares


def tell_uses(shares: Mapping[str, Share]) -> None:
    """Say which sources are repeated more often than does any good."""
    for name, share in shares.items():
        if share.uses > MANY_USES:
            log.warning(
                "%s: each row is used %.1f times; beyond %d times, more uses hardly help "
                "(arXiv:2305.16264): lower mixture.%s, or set preprocess.max_uses",
                *(name, share.uses, MANY_USES, name),
            )


def unused_sources(params: Params) -> list[str]:
    """The sources that are read, and have a share of 0 in the mixture."""
    return sorted(name for name in params.data.names() if not params.mixture[name])


def interleave(
    params: Params, sources: np.ndarray, keys: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """All rows in an order of which any beginning holds the mixture's shares, as long as each
    source lasts; rows of sources without a share come last."""
    place = np.empty(len(sources))
    for n, share in enumerate(_targets(params)):
        rows = _ordered(np.flatnonzero(sources == n), keys)
        middle = np.cumsum(weights[rows]) - weights[rows] / 2
        place[rows] = middle / share if share else np.inf
    return np.lexsort((keys, place))


def _targets(params: Params) -> np.ndarray:
    shares = np.array([params.mixture[name] for name in params.data.names()], dtype=float)
    return shares / shares.sum()


def _ordered(rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
    return rows[np.argsort(keys[rows], kind="stable")]


def _total(
    params: Params, names: Sequence[str], target: np.ndarray, available: np.ndarray
) -> float:
    """How much the whole mixture weighs."""
    settings, wanted = params.preprocess, target > 0
    empty = [name for n, name in enumerate(names) if wanted[n] and not available[n]]
    if empty:
        raise ValueError(
            f"mixture.{empty[0]} is {params.mixture[empty[0]]}, but no training document of "
            f"{empty[0]} is left; set its share to 0, or mend the source"
        )
    most = (settings.max_uses or np.inf) if settings.mixture_repeat else 1
    if not settings.mixture_total:
        possible = available[wanted] / target[wanted]
        return float(min(possible.max(), possible.min() * most))
    for n, name in enumerate(names):
        needed = target[n] * settings.mixture_total
        if settings.mixture_repeat and needed > available[n] * most:
            raise ValueError(
                f"mixture.{name} needs {needed:,.0f} {settings.mixture_unit} of the "
                f"preprocess.mixture_total {settings.mixture_total:,}, but {name} has "
                f"{available[n]:,.0f}: {needed / available[n]:,.1f} uses of each row, more than "
                f"preprocess.max_uses {most}; lower mixture_total or its share, or raise max_uses"
            )
        if needed > available[n] and not settings.mixture_repeat:
            raise ValueError(
                f"mixture.{name} needs {needed:,.0f} {settings.mixture_unit} of the "
                f"preprocess.mixture_total {settings.mixture_total:,}, but {name} has "
                f"{available[n]:,.0f}: lower mixture_total or its share, or set mixture_repeat"
            )
    return float(settings.mixture_total)


def _take(rows: np.ndarray, weights: np.ndarray, target: float) -> np.ndarray:
    """Rows from the first on, all of them again where need be, until the sum is nearest."""
    whole = weights.sum()
    if not len(rows) or not target:
        return rows[:0]
    times = int(target / whole * (1 + 1e-12))
    middle = np.cumsum(weights) - weights / 2
    rest = rows[: np.searchsorted(middle, target - times * whole, side="right")]
    return np.concatenate([np.tile(rows, times), rest])
