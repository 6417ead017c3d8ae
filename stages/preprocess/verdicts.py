"""Which documents stay, in which split: what is alike is in one split, and is there once.

A document is left out for the first other that it is a copy of, and from training where it would
show what is evaluated.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from finetune.params import Params
from stages.preprocess.duplicates import (
    ALIKE,
    DUPLICATE,
    EQUAL,
    GROUPED,
    JOINED,
    NEAR_DUPLICATE,
    RELATION,
    ranks,
)
from stages.preprocess.mixture import unused_sources
from stages.preprocess.shards import Shards
from stages.preprocess.splits import TRAIN, choose_splits, clusters, missing_splits

log = logging.getLogger(__name__)
REASONS = ("", "duplicate", "near_duplicate", "leak", "near_leak", "group_leak", "leak_file")
_DUPLICATE, _NEAR, LEAK, NEAR_LEAK, GROUP_LEAK, LEAK_FILE = range(1, len(REASONS))
_LEAKS = (LEAK, NEAR_LEAK, GROUP_LEAK)
_TOLD = {_NEAR: "resemble another one", LEAK_FILE: "hold a text of preprocess.leak_files"}
_WAYS_OUT = {
    ("duplicate",): "its documents are the same: look at what its templates in documents.{0} name",
    ("leak", "group_leak"): "mend the splits that it comes with, or fetch it without them "
    "(files: {{}}) to have it split here",
    ("near_duplicate", "near_leak"): "if its documents are alike only in a long instruction, write "
    "that into documents.{0}.instruction; if they are to stay, raise "
    "preprocess.duplicate_similarity or set preprocess.near_duplicates: false",
    ("template_without_tools", "template_without_reasoning"): "choose a base model whose chat "
    "template writes them, or take them out of the messages by a step of your own",
    ("leak_file",): "if these are no copies of evaluation texts, raise "
    "preprocess.duplicate_similarity (the share of a text that a document may hold), or take the "
    "texts out of preprocess.leak_files",
}
MUCH = 0.2  # of a source's documents: more that are left out for a likeness are told
_VERDICT = np.dtype([("document", "<i8"), ("other", "<i8"), ("reason", "<i8")])


@dataclass(frozen=True)
class Verdicts:
    """`split` int8[n] is -1 for what is left out; `left_out` says why and for which other document
    (of leak_file: for which text), sorted; `cluster` int64[n] is what shares a split."""

    split: np.ndarray
    left_out: np.ndarray
    cluster: np.ndarray


def judge(params: Params, shards: Shards, relations: np.ndarray) -> Verdicts:
    """The split of every document, or that it is left out."""
    own = shards.column("own")
    pairs = relations[relations["kind"] != EQUAL]  # alike only behind masks: no reason to move
    cluster = clusters(len(shards), np.stack([pairs["document"], pairs["other"]], axis=1))
    missing = _missing(params, shards)
    identity = shards.column("identity").astype(np.uint64)
    split = choose_splits(identity, own, missing, cluster, params.preprocess)
    relations = np.concatenate([_equal(shards, split, unused_sources(params)), relations])
    left_out = _left_out(relations, split, own)
    held = shards.column("leak")
    told = np.flatnonzero((held >= 0) & (split == TRAIN))
    told = np.setdiff1d(told, left_out["document"])
    more = np.zeros(len(told), _VERDICT)
    more["document"], more["other"], more["reason"] = told, held[told], LEAK_FILE
    left_out = np.sort(np.concatenate([left_out, more]), order="document")
    final = split.copy()
    final[left_out["document"]] = -1
    return Verdicts(final, left_out, cluster)


def leak_share(params: Params, shards: Shards, verdicts: Verdicts) -> float:
    """The share of training documents that resemble evaluation documents of a source's own splits;
    they are left out. What the tool split itself cannot leak.

    Raises ValueError above preprocess.max_leak_share, with the first of them.
    """
    limit = params.preprocess.max_leak_share
    leaks = verdicts.left_out[np.isin(verdicts.left_out["reason"], _LEAKS)]
    trained = int((verdicts.split == TRAIN).sum()) + len(leaks)
    share = len(leaks) / trained if trained else 0.0
    if share > limit:
        first = [
            f"{shards.origin(a)} resembles {shards.origin(b)}" for a, b, _ in leaks[:3].tolist()
        ]
        raise ValueError(
            f"{len(leaks)} of {trained} training documents ({share:.1%}) resemble evaluation "
            f"documents, more than preprocess.max_leak_share {limit}: {'; '.join(first)}. They are "
            "left out of training in any case: mend the splits that the data comes with, or fetch "
            "it without them (files: {}) to have it split here, or raise the limit; if they are "
            "alike only in a long instruction, write that into documents.NAME.instruction, or set "
            "preprocess.near_duplicates: false"
        )
    return share


def way_out(reason: str, source: str) -> str:
    """What somebody can do who wants to keep the documents of a source."""
    found = (way for reasons, way in _WAYS_OUT.items() if reason in reasons)
    default = "mend the source, or its templates and steps in documents.{0}"
    return next(found, default).format(source)


def tell_alike(shards: Shards, verdicts: Verdicts) -> None:
    """Say it where near-duplicates or leak files cost a source more than MUCH of its documents."""
    counts: dict[str, np.ndarray] = {}
    documents: dict[str, int] = {}
    bounds = zip(shards.sources, shards.starts, shards.starts[1:], strict=False)
    for source, start, end in bounds:
        low, high = np.searchsorted(verdicts.left_out["document"], [start, end])
        reasons = np.bincount(verdicts.left_out["reason"][low:high], minlength=len(REASONS))
        counts[source] = counts.get(source, 0) + reasons
        documents[source] = documents.get(source, 0) + end - start
    for source, reasons in counts.items():
        for number, what in _TOLD.items():
            if reasons[number] > MUCH * documents[source]:
                log.warning(
                    f"{reasons[number]} of {documents[source]} documents of {source} {what} and "
                    f"are left out: {way_out(REASONS[number], source)}"
                )


def _missing(params: Params, shards: Shards) -> np.ndarray:
    """bool[n, splits]: the splits that the source of each document lacks."""
    missing = np.zeros((len(shards), 3), bool)
    bounds = zip(shards.sources, shards.starts, shards.starts[1:], strict=False)
    lacked = {name: missing_splits(own_splits(params, name)) for name in set(shards.sources)}
    for source, start, end in bounds:
        missing[start:end, lacked[source]] = True
    return missing


def own_splits(params: Params, source: str) -> list[str]:
    """The splits that a source comes with, by params."""
    kinds = (params.data.files, params.data.urls, params.data.hub)
    files = next((kind[source].files for kind in kinds if source in kind), {})
    return [split for split in files if split != "all"]


def _equal(shards: Shards, split: np.ndarray, unused: Collection[str]) -> np.ndarray:
    """Each finished document that is there already, with the first: in test, else in validation."""
    content, rank = shards.column("content"), ranks(shards, unused)
    order = np.lexsort((rank, -split.astype(int), content))
    same = np.concatenate([[False], content[order][1:] == content[order][:-1]])[: len(order)]
    first = order[np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))]
    found = np.zeros(int(same.sum()), RELATION)
    found["document"], found["other"], found["kind"] = order[same], first[same], DUPLICATE
    return found


def _left_out(relations: np.ndarray, split: np.ndarray, own: np.ndarray) -> np.ndarray:
    """One verdict a document: for the first other that it may not stand beside."""
    document, other, kind = (relations[name].copy() for name in ("document", "other", "kind"))
    turned = (split[document] == TRAIN) < (split[other] == TRAIN)  # the evaluation copy stays
    document[turned], other[turned] = other[turned], document[turned]
    across = split[document] != split[other]
    leaking = across & (split[document] == TRAIN) & (own[other] > 0)
    reason = np.zeros(len(relations), np.int64)
    reason[(kind == DUPLICATE) | (across & (kind == JOINED))] = _DUPLICATE
    reason[(kind == NEAR_DUPLICATE) | (across & (kind == ALIKE))] = _NEAR
    reason[leaking & np.isin(kind, (DUPLICATE, JOINED))] = LEAK
    reason[leaking & np.isin(kind, (NEAR_DUPLICATE, ALIKE))] = NEAR_LEAK
    reason[across & (kind == GROUPED)] = GROUP_LEAK
    found = np.zeros(len(relations), _VERDICT)
    found["document"], found["other"], found["reason"] = document, other, reason
    found = found[reason > 0]
    found = found[np.lexsort((found["reason"], found["document"]))]
    return found[np.unique(found["document"], return_index=True)[1]]
