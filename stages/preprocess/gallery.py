"""A page with a few rendered examples of each split, the supervised part marked."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune.params import Params
from stages.preprocess.examples import Examples
from stages.preprocess.tokenise import load

ROWS = 10
_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Examples as the model sees them</title>
<style>
:root { color-scheme: light dark; --mark: #ffe9a8; --line: #8884; --faint: #777 }
@media (prefers-color-scheme: dark) { :root { --mark: #5c4a12; --faint: #999 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
article { border-top: 1px solid var(--line); padding: .8rem 0 }
header, p { color: var(--faint) }
pre { font: 14px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
      margin: .4rem 0 }
mark { background: var(--mark); color: inherit; border-radius: 3px; padding: .1em 0 }
</style>
"""


def write_page(
    path: Path, params: Params, base: Path, examples: Examples, chosen: Mapping[str, np.ndarray]
) -> None:
    """Write ROWS examples of each split, evenly spread over its sources' rows, as one HTML page."""
    parts = [_HEAD, f"<h1>{params.preprocess.mode.capitalize()} examples</h1>\n"]
    parts.append("<p>What is marked is supervised: the loss is taken there and nowhere else.</p>\n")
    for split, rows in chosen.items():
        parts.append(f"<h2>{split}</h2>\n<p>{len(rows):,} examples</p>\n")
        few = rows[np.argsort(examples.key[rows], kind="stable")[:ROWS]]
        for batch in examples.batches(few):
            parts += [_article(load(base), batch, row) for row in range(len(batch))]
    path.write_text("".join(parts) + "</html>\n", encoding="utf-8")


def _article(tokenizer: Any, batch: pa.RecordBatch, row: int) -> str:
    ids, spans = batch["input_ids"][row].as_py(), batch["spans"][row].as_py()
    marked = sum(end - start for start, end in zip(spans[::2], spans[1::2], strict=True))
    head = f"{batch['source'][row].as_py()} {batch['id'][row].as_py()}"
    return (
        f"<article><header>{escape(head)}: {len(ids)} tokens, {marked} supervised</header>"
        f"<pre>{_marked(tokenizer, ids, spans)}</pre></article>\n"
    )


def _marked(tokenizer: Any, ids: list[int], spans: list[int]) -> str:
    """The decoded tokens, supervised spans within <mark>."""
    bounds = [0, *spans, len(ids)]
    html = []
    for number, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        text = escape(tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False))
        html.append(f"<mark>{text}</mark>" if number % 2 and text else text)
    return "".join(html)
