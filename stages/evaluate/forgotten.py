"""What tuning cost elsewhere: the loss of base and tuned on a general text of fixed origin."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.text.tokens import Example
from stages.evaluate.intervals import Bootstrap

PASSAGE_TOKENS = 256  # within every model's context


def read_passages(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The text's passages, which blank lines part, each cut to PASSAGE_TOKENS, all supervised.

    The tokenizer adds what it adds to any text, such as its beginning-of-text token: no template.
    Raises ValueError for a text without a passage.
    """
    text = path.read_text(encoding="utf-8")
    passages = [passage.strip() for passage in text.split("\n\n") if passage.strip()]
    found = [tokenizer(each).input_ids[:PASSAGE_TOKENS] for each in passages]
    rows = [
        Example(
            f"passage-{at}", "general", np.array(ids, np.int32), np.array([1, len(ids)], np.int32)
        )
        for at, ids in enumerate(found)
        if len(ids) > 1
    ]
    if not rows:
        raise ValueError(f"evaluate.general_text: {path} has no passage of two tokens or more")
    return rows


def forgotten(
    passages: Sequence[Example],
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    samples: int,
    seed: int,
) -> dict[str, float | int | None]:
    """tuned - base in nats per token of general text, with its paired interval over passages.

    `base` and `tuned` are the passages' losses as `row_losses` gives them.
    """
    weights = [len(row.supervised()) for row in passages]
    change = [after - before for before, after in zip(base, tuned, strict=True)]
    draws = Bootstrap([row.id for row in passages], samples=samples, seed=seed)
    found, tokens = draws.mean(change, weights), sum(weights)
    losses = {"loss": found.value, "base": sum(base) / tokens, "tuned": sum(tuned) / tokens}
    losses |= {"low": found.low, "high": found.high}
    rounded = {name: None if v is None else round(v, 4) for name, v in losses.items()}
    return {**rounded, "passages": len(passages), "tokens": tokens}
