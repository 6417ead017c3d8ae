"""The two passes over the data: rows to documents, and the documents that stay to examples."""

from pathlib import Path

import numpy as np

from finetune.params import Params
from stages.preprocess.collect import collect
from stages.preprocess.examples import Examples, index_examples
from stages.preprocess.leaks import write_leak_parts
from stages.preprocess.parts import Parts, index_parts
from stages.preprocess.plan import collect_tasks, tokenise_tasks
from stages.preprocess.tokenise import tokenise
from stages.preprocess.work import Work


def read_documents(work: Work, params: Params, raw: Path) -> Parts:
    """First pass: every source's rows as cleaned documents."""
    tasks = collect_tasks(params, raw, work.folder)
    work.run("read", collect, tasks)
    leaks = write_leak_parts(params.preprocess, work.folder)
    sources = [task.source for task in tasks] + [""] * len(leaks)
    return index_parts([task.path for task in tasks] + leaks, sources)


def make_examples(
    work: Work, params: Params, base: Path, parts: Parts, verdicts: np.ndarray
) -> Examples:
    """Second pass: the documents that stay, as examples."""
    keep = np.ones(parts.starts[-1], dtype=bool)
    keep[verdicts["document"]] = False
    tasks = tokenise_tasks(params, base, parts, keep, work.folder)
    work.run("tokenise", tokenise, tasks)
    return index_examples([task.path for task in tasks], [task.source for task in tasks])
