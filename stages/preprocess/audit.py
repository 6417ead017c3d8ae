"""What no example may be: checked for each one, and the stage ends where one is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.text.templates import stop_ids
from stages.preprocess.pieces import Piece


def audit(tokenizer: Any, pieces: Sequence[Piece], origin: str) -> None:
    """Raise ValueError where one document's examples would teach the wrong thing, and say which."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ends = {*tokenizer.all_special_ids, *stop_ids(tokenizer)}
    for example in pieces:
        ids, spans = example.input_ids, example.spans
        if not any(end > start for start, end in zip(spans[::2], spans[1::2], strict=True)):
            _fail("no supervised token", ids, origin)
        if any(a >= b for a, b in zip([0, *spans], spans, strict=False)) or spans[-1] > len(ids):
            _fail(f"spans {spans} that are not in order", ids, origin)
        if bos is not None and bos != eos and ids[:2] == [bos, bos]:
            _fail("two BOS", ids, origin)
    last = pieces[-1]
    if last.spans[-1] != len(last.input_ids) or last.input_ids[-1] not in ends:
        _fail("no supervised end token at its end", last.input_ids, origin)


def check_cut(cut: np.ndarray, limit: float) -> None:
    """Raise ValueError where more of the examples were cut (bool[n]) than params allow."""
    if len(cut) and cut.mean() > limit:
        raise ValueError(
            f"{cut.sum()} of {len(cut)} examples are cut ({cut.mean():.1%}), more than "
            f"preprocess.max_truncated_share {limit}: raise preprocess.max_length, or the share"
        )


def _fail(what: str, ids: Sequence[int], origin: str) -> None:
    raise ValueError(
        f"mask audit: the example of {origin} has {what} ({len(ids)} tokens, "
        f"first {list(ids[:8])}, last {list(ids[-4:])}); the fault is in the chat template or "
        "in finetune/text/prompts.py, not in the data"
    )
