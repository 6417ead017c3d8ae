"""From fetched rows to token ids: clean, split, deduplicate, tokenise, mix, and report.

In: the tokenizer of the base model, the fetched sources. Out: examples by split, metrics, and a
report of what was kept and of everything that was not.
"""

import argparse
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from finetune.errors import run
from finetune.params import Params, load
from finetune.records import SPLITS, write_json
from stages.preprocess import tokenise
from stages.preprocess.audit import check_cut
from stages.preprocess.duplicates import find_relations
from stages.preprocess.examples import Examples
from stages.preprocess.mixture import Share, choose, interleave, tell_uses, unused_sources
from stages.preprocess.outputs import write_prepared
from stages.preprocess.plan import fingerprint, make_examples, read_documents
from stages.preprocess.rejected import check_rejected
from stages.preprocess.report import explain_empty, refused_by_source, summarise, write_report
from stages.preprocess.shards import count_by_source
from stages.preprocess.splits import TEST, TRAIN, VALIDATION
from stages.preprocess.unnamed import put_aside
from stages.preprocess.verdicts import judge, leak_share, tell_alike
from stages.preprocess.work import open_work

log = logging.getLogger(__name__)


def main() -> None:
    paths, params = _parse(), load()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    tokenise.load(paths.base)  # before the processes are forked, so that they share it
    put_aside(paths.raw, params.data.names())
    pa.array([])  # which imports pandas: once, not in each of them
    with open_work(fingerprint(params, paths.base, paths.raw), paths.workers) as work:
        shards = read_documents(work, params, paths.raw)
        check_rejected(params, count_by_source(shards))
        relations = find_relations(work, shards, params.preprocess, unused_sources(params))
        verdicts = judge(params, shards, relations)
        leak = leak_share(params, shards, verdicts)
        tell_alike(shards, verdicts)
        examples = make_examples(work, params, paths.base, shards, verdicts.split)
        check_rejected(params, count_by_source(shards), refused_by_source(shards, examples))
        explain_empty(params, shards, verdicts, examples)
        check_cut(examples.cut, params.preprocess.max_truncated_share)
        chosen, shares = _choose(params, examples)
        write_prepared(paths.out, params, examples, chosen, shards, verdicts.cluster)
        dropped = write_report(
            paths.report, params, paths.base, shards, verdicts, examples, chosen, shares
        )
        metrics = summarise(shards, examples, chosen, shares, dropped, leak)
        write_json(paths.metrics, metrics)
    _tell(metrics)


def _choose(params: Params, examples: Examples) -> tuple[dict[str, np.ndarray], dict[str, Share]]:
    """The rows of each split, in order: training by the mixture, all that is held out."""
    weights = examples.weights(params.preprocess.mixture_unit)
    rows = [np.flatnonzero(examples.split == number) for number in range(len(SPLITS))]
    columns = [(examples.source[each], examples.key[each], weights[each]) for each in rows]
    train, shares = choose(params, *columns[TRAIN])
    tell_uses(shares)
    chosen = {"train": rows[TRAIN][train]}
    for split in (VALIDATION, TEST):
        chosen[SPLITS[split]] = rows[split][interleave(params, *columns[split])]
    return chosen, shares


def _tell(metrics: dict) -> None:
    """One line of the story for each split, and one for what was left out."""
    for split in SPLITS:
        log.info("%s: %d rows, %d tokens", split, metrics[split]["rows"], metrics[split]["tokens"])
    left_out = {
        f"{source} {reason}": number
        for source, reasons in metrics["dropped"].items()
        for reason, number in reasons.items()
    }
    log.info("left out of %d: %s", metrics["read"], left_out or "nothing")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.preprocess")
    parser.add_argument("base", type=Path, help="base model, models/base")
    parser.add_argument("raw", type=Path, help="fetched sources, data/raw")
    parser.add_argument("out", type=Path, help="examples, data/prepared")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
