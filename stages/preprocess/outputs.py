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
from stages.preprocess.examples import Examples
from stages.preprocess.shards import Shards, open_shard, turns_of
from stages.preprocess.turns import Turn, said


def write_prepared(
    out: Path,
    params: Params,
    examples: Examples,
    chosen: Mapping[str, np.ndarray],
    shards: Shards,
    cluster: np.ndarray,
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
        for text in _texts(examples, chosen["test"], shards, cluster):
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


def _texts(
    examples: Examples, rows: np.ndarray, shards: Shards, cluster: np.ndarray
) -> Iterator[dict[str, str]]:
    """What a person reads of each row: what its last span answers, and that answer; and what
    belongs together: `document`, and `group`, which is all that shares a split with it."""
    identities, ids = shards.column("identity"), shards.column("id")
    least = np.full(len(cluster), np.iinfo(np.uint64).max)
    np.minimum.at(least, cluster, identities)
    for row in rows:
        document = int(examples.document[row])
        path, at = shards.locate(document)
        shard = open_shard(path)
        turns = turns_of(shard, at)
        question, reference = _exchange(turns, int(examples.answer[row]))
        if any("tool_calls" in turn.more for turn in turns):
            reference = examples.written(row) or reference
        yield {
            "id": f"{examples.key[row]:016x}",
            "document": f"{ids[document]:016x}",
            "source": shards.source(document),
            "group": f"{least[cluster[document]]:016x}",
            "label": shard["label"][at].as_py(),
            "question": question,
            "reference": reference,
        }


def _exchange(turns: list[Turn], answer: int) -> tuple[str, str]:
    """What is asked before the document's answer of that number, and the answer: the last turns may
    not fit, or not be learnt. Two empty texts where nothing is asked."""
    answers = [number for number, turn in enumerate(turns) if turn[0] == "assistant"]
    if not answers:
        return "", ""
    before, reference = turns[: answers[answer]], turns[answers[answer]][1]
    if len(before) == 1:
        return before[0][1], reference
    return "\n\n".join(f"{turn[0]}: {said(turn)}" for turn in before), reference
