"""A document's examples before they have a name, and where to cut a long text into them.

A cut is made between paragraphs, else sentences, else words.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

_BOUNDS = (
    re.compile(r"\n\s*\n"),  # paragraphs
    re.compile(r"\n"),
    re.compile(r"[.!?\u3002\uff01\uff1f][\"')\]\u201d\u2019]{0,3}\s+|[\u3002\uff01\uff1f]"),
    re.compile(r"\s+"),
)
SHORTEST = 0.5  # of a full piece: a bound before that is not worth the tokens


@dataclass(frozen=True)
class Piece:
    """Token ids, flat [start, end) spans of the supervised ones, whether a text was cut, which of
    its document's answers the last span is, and that as a model writes it where it calls a tool."""

    input_ids: list[int]
    spans: list[int]
    cut: bool = False
    answer: int = 0
    written: str | None = None


def cut_text(
    text: str, offsets: Sequence[tuple[int, int]], before: int, max_tokens: int
) -> list[int]:
    """Where to cut a text's ids, with `before` ids in front of the text's own and one behind.

    Each cut is the end of a piece of at most `max_tokens`, at the last bound of the best kind in
    the piece's second half. No token is in two pieces, and none in no piece.
    """
    starts = [*(start for start, _ in offsets), len(text)]
    total, ends = before + len(starts), [0]
    while total - ends[-1] > max_tokens:
        earliest = ends[-1] + max(1, int(max_tokens * SHORTEST))
        latest = ends[-1] + max_tokens
        ends.append(_cut(text, starts, earliest - before, latest - before) + before)
    return ends[1:]


def _cut(text: str, starts: Sequence[int], earliest: int, latest: int) -> int:
    """The last token from earliest to latest that begins behind a bound; else `latest`."""
    for bound in _BOUNDS:
        found = bound.finditer(text, starts[earliest], starts[latest] + 1)
        for place in reversed([match.end() for match in found]):
            token = bisect_left(starts, place)
            if starts[token] != place:
                token -= 1  # which may begin with the blank before the place
            if earliest < token <= latest and starts[token] >= place - 1:
                return token
    return latest
