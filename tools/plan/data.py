"""How many rows and tokens a run trains on, and how that is known.

In this order: metrics/data.json, where dvc.lock says that it was made from these params; the data
files on this machine, read and counted; the size of a dataset that is known; else nothing at all.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.params import Params
from tools.plan.files import CHARACTERS_PER_TOKEN, Unreadable, count_files
from tools.plan.findings import Rows, listed
from tools.plan.lock import Lock

METRICS = "metrics/data.json"
KNOWN = Path(__file__).with_name("known.json")  # dataset@commit -> rows, tokens of a row, source
FEW_KEYS = 4  # more that differ are another run altogether, and are not listed
# Of the tokens, where no row was counted: it only says how much of the head's product is made.
SUPERVISED = {"completion": 0.05, "causal": 1.0, "chat": 0.5}

Basis = Literal["given", "prepared", "estimate", "known", "unknown"]


@dataclass(frozen=True)
class Data:
    """Training and validation rows, None where unknown; `basis` in a word, `where` in a line."""

    basis: Basis
    where: str
    train: Rows | None = None
    validation: Rows | None = None
    supervised_share: float = 1.0


def find_data(
    params: Params,
    values: dict[str, Any],
    root: Path,
    *,
    tokenizer: Path | None = None,
    given: tuple[int, int] | None = None,
) -> Data:
    """The rows of a run. `values` is the params file as YAML has it, `tokenizer` a tokenizer.json,
    `given` the rows and tokens of a row that the user named. Raises ValueError where these are more
    than a row may have."""
    share = SUPERVISED[params.preprocess.mode]
    if given:
        (rows, mean), longest = given, params.preprocess.max_length
        if mean > longest:
            raise ValueError(f"--row-tokens is {mean}, above preprocess.max_length {longest}")
        return Data("given", "as given", Rows(rows, rows * mean, longest), None, share)
    lock = Lock(root)
    changed = _why_other(lock, values)
    if changed is None:
        return _prepared(root)
    data = params.data
    if data.files and not (data.urls or data.hub or data.web):
        found = _from_files(params, root, tokenizer)
    else:
        found = _known(params)
    note = f"; {changed}" if changed else ""
    return Data(found.basis, found.where + note, found.train, found.validation, share)


def _why_other(lock: Lock, values: dict[str, Any]) -> str | None:
    """Why metrics/data.json does not say it: in words, "" where it never was; None where it does.

    The tokenizer is the base model's.
    """
    made = lock.differences("preprocess", values)
    if made is None:
        return ""
    model = lock.params("fetch_model").get("model")
    if model is not None and model != values.get("model"):
        made += ["model"]
    if made:
        return f"data/prepared is of other params{_named(made)}"
    if changed := lock.changed_data(values["data"]["files"]):
        return f"{listed(changed)} changed since data/prepared was made"
    return None if lock.is_out("preprocess", METRICS) else f"{METRICS} is not of dvc.lock"


def _named(keys: list[str]) -> str:
    return f" ({', '.join(keys)})" if len(keys) <= FEW_KEYS else ""


def _prepared(root: Path) -> Data:
    """What preprocess counted."""
    found = json.loads((root / METRICS).read_text(encoding="utf-8"))
    train, validation = (
        Rows(each["rows"], each["tokens"], each["max"] or 1, each["supervised"])
        for each in (found["train"], found["validation"])
    )
    where = "counted: data/prepared of these params, by dvc.lock and metrics/data.json"
    share = train.supervised / train.tokens if train.tokens else 1.0
    return Data("prepared", where, train, validation, share)


def _known(params: Params) -> Data:
    """By the table of datasets whose size is known; all sources must be in it."""
    table = json.loads(KNOWN.read_text(encoding="utf-8"))
    sources = {**params.data.files, **params.data.urls, **params.data.web}
    names = {name: f"{hub.name}@{hub.revision}" for name, hub in params.data.hub.items()}
    unknown = [*sources, *(name for name, place in names.items() if place not in table)]
    if unknown:
        return Data("unknown", f"unknown ({listed(unknown)}): run `dvc repro preprocess`")
    found = [table[place] for place in names.values()]
    rows = sum(each["rows"] for each in found)
    tokens = sum(each["rows"] * each["tokens_per_row"] for each in found)
    train = Rows(rows, tokens, params.preprocess.max_length)
    told = listed(dict.fromkeys(each["source"] for each in found))
    return Data("known", f"known of these datasets, not counted here ({told})", train)


def _from_files(params: Params, root: Path, tokenizer: Path | None) -> Data:
    """From the files on this machine, as they are before anything is cleaned or left out."""
    try:
        train, validation = count_files(params, root, tokenizer)
    except Unreadable as error:
        return Data("unknown", f"unknown ({error}): run `dvc repro preprocess`")
    by = "the base's tokenizer" if tokenizer else f"{CHARACTERS_PER_TOKEN} characters a token"
    where = f"estimate from the data files, by {by}, before rows are cleaned and left out"
    return Data("estimate", where, train, validation)
