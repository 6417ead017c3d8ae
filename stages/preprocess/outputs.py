"""What the other stages read: examples by split, and the texts of the test split."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from finetune.text.tokens import TokenWriter
from stages.preprocess.collect import read_part, turns_of
from stages.preprocess.documents import Turn
from stages.preprocess.examples import Examples
from stages.preprocess.parts import Parts


def write_prepared(
    out: Path, examples: Examples, chosen: Mapping[str, np.ndarray], parts: Parts
) -> None:
    """Write each split's examples, and `test/texts.jsonl`. The folder appears when all is there."""
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
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


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
