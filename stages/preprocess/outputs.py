"""What the other stages read: examples by split, and the texts of the test split."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from finetune.params import Params
from finetune.records import write_json
from finetune.text.prompts import make_words
from finetune.text.tokens import TokenWriter
from stages.preprocess.collect import read_part, turns_of
from stages.preprocess.examples import Examples
from stages.preprocess.parts import Parts
from stages.preprocess.turns import Turn


def write_prepared(
    out: Path,
    params: Params,
    examples: Examples,
    chosen: Mapping[str, np.ndarray],
    parts: Parts,
) -> None:
    """Write each split's examples, `test/texts.jsonl`, and `train/prompt.json`: how to ask a model
    that is trained on them. The folder appears when all is there."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for split, rows in chosen.items():
        with TokenWriter(partial / split) as writer:
            bar = tqdm(desc=f"write {split}", total=len(rows), unit="row", disable=None)
            for batch in examples.batches(rows):
                writer.write_batch(batch)
                bar.update(len(batch))
            bar.close()
    with (partial / "test/texts.jsonl").open("w", encoding="utf-8") as file:
        for text in _texts(examples, chosen["test"], parts):
            file.write(json.dumps(text, ensure_ascii=False, sort_keys=True) + "\n")
    write_json(partial / "train/prompt.json", describe_prompts(params))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def describe_prompts(params: Params) -> dict[str, Any]:
    """The mode, the longest example, and the words around each source's questions."""
    return {
        "mode": params.preprocess.mode,
        "max_length": params.preprocess.max_length,
        "words": {
            name: asdict(make_words(params.prompt, document))
            for name, document in params.documents.items()
        },
    }


def _texts(examples: Examples, rows: np.ndarray, parts: Parts) -> Iterator[dict[str, str]]:
    """What a person reads of each row: the last question, and the answer that it has."""
    for row in rows:
        path, at = parts.locate(int(examples.document[row]))
        question, reference = _last_exchange(turns_of(read_part(path)[0], at))
        id = f"{examples.key[row]:016x}"
        yield {"id": id, "question": question, "reference": reference}


def _last_exchange(turns: list[Turn]) -> tuple[str, str]:
    if turns[-1][0] != "assistant":
        return "", ""
    *before, (_, reference) = turns
    if len(before) == 1:
        return before[0][1], reference
    return "\n\n".join(f"{role}: {text}" for role, text in before), reference
