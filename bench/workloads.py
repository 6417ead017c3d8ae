"""Token data for measurements: legal questions by length, and full windows of running text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finetune.text.tokens import TokenWriter

TITLE_TOKENS = 12
WINDOW = 2048


def draw_rows(kind: str, count: int, words: int) -> Iterator[tuple[list[int], list[int]]]:
    """(input_ids, spans) of random tokens.

    `law`: lengths as in law-stack-exchange (log-normal, 32 to 512 tokens, mean 250), of which the
    last 12, the title, are supervised. `causal`: windows of 2,048 tokens, all supervised.
    """
    drawn = np.random.default_rng(0)
    for _ in range(count):
        length, supervised = WINDOW, WINDOW - 1
        if kind == "law":
            length = int(np.clip(drawn.lognormal(5.4, 0.7), 32, 512))
            supervised = min(TITLE_TOKENS, length // 2)
        yield drawn.integers(3, words, length).tolist(), [length - supervised, length]


def write_split(folder: Path, kind: str, count: int, words: int) -> Path:
    """The rows as prepared data of this project."""
    with TokenWriter(folder) as writer:
        for number, (ids, spans) in enumerate(draw_rows(kind, count, words)):
            writer.write(f"{number:016x}", kind, ids, spans)
    return folder
