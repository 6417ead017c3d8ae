"""What makes a run this run: everything that shapes its trajectory, as readable JSON."""

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.checkpoints import find_damage
from finetune.model.load import resolve
from finetune.params import Params
from finetune.records import file_sha256

FACTS = "fingerprint.json"
ROOT = Path(__file__).resolve().parents[2]
# What computes. What only checks, draws, times, writes or words a message is not here: the state of
# a long run must outlive a change in it.
CODE = (
    "finetune/flat",
    "finetune/model/layers.py",
    "finetune/model/load.py",
    "finetune/model/memory.py",
    "finetune/model/probe.py",
    "finetune/model/saved.py",
    "finetune/model/targets.py",
    "finetune/text/tokens.py",
    "stages/train/adapter.py",
    "stages/train/callbacks.py",
    "stages/train/evaluation.py",
    "stages/train/fast",
    "stages/train/saving.py",
    "stages/train/settings.py",
    "stages/train/steps.py",
    "stages/train/training.py",
)
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
# What may change in the middle of a run: where it starts from, who watches it, what is kept of it.
FREE = {
    "keep_unfinished",
    "memory",
    "report_to",
    "resume_accept",
    "resume_from",
    "save_total_limit",
}
# What train.resume_accept may name. With other data, another base, adapter or optimizer the saved
# state would not be what continues.
ACCEPTABLE = (
    "code",
    "compute",
    "processes",
    "train.compile",
    "train.early_stopping_patience",
    "train.eval_steps",
    "train.gradient_accumulation_steps",
    "train.gradient_checkpointing",
    "train.logging_steps",
    "train.max_grad_norm",
    "train.max_steps",
    "train.micro_batch_tokens",
    "train.num_train_epochs",
    "train.per_device_train_batch_size",
    "train.save_steps",
    "versions",
)
EXAMPLES = ("per_device_train_batch_size", "gradient_accumulation_steps")


def describe_run(params: Params, base: Path, prepared: Path, processes: int) -> dict[str, Any]:
    """The run's facts; two runs with equal facts are the same run, interrupted or not.

    `continued` says what an explicit checkpoint of another run differed in, where that was
    accepted. Raises ValueError where it differs in something else, is damaged or does not exist.
    """
    train = {key: value for key, value in asdict(params.train).items() if key not in FREE}
    if params.train.init_adapter:
        train["init_adapter"] = _sums(Path(params.train.init_adapter), "adapter_*")
    facts = {
        "seed": params.seed,
        "base": file_sha256(base / "manifest.json"),
        "data": {split: _sums(prepared / split, "*.arrow") for split in ("train", "validation")},
        "quantization": asdict(params.quantization),
        "compute": asdict(resolve(params.compute)),
        "lora": asdict(params.lora),
        "train": train,
        "processes": processes,
        "versions": {name: version(name).partition("+")[0] for name in LIBRARIES},
        "code": _code(),
    }
    if params.train.resume_from:
        start = Path(params.train.resume_from)
        return _continue_run(facts, start, params.train.resume_accept)
    return facts


def digest(facts: dict[str, Any]) -> str:
    """A short name for `facts`: 16 hex digits of their sha256."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def differences(facts: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """`key is A here, B there` for every key that differs, dotted."""
    ours, theirs = _flatten(facts), _flatten(other)
    return [
        f"{key} is {_short(ours.get(key))} here, {_short(theirs.get(key))} there"
        for key in _keys_that_differ(facts, other)
    ]


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The facts of the run that a checkpoint is of; {} where it says nothing."""
    try:
        return json.loads((checkpoint / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _continue_run(facts: dict[str, Any], start: Path, accepted: list[str]) -> dict[str, Any]:
    """`facts`, and where `start` is of another run, what it differs in."""
    if not start.is_dir():
        raise ValueError(
            f"train.resume_from is {start}, which does not exist; DVC deletes models/checkpoints "
            "before it trains: copy the checkpoint to another folder first"
        )
    if damage := find_damage(start):
        raise ValueError(f"train.resume_from is {start}, which is damaged: {damage}")
    other = read_facts(start)
    before = other.pop("continued", None)
    found = _keys_that_differ(facts, other)
    if not found:
        return facts if before is None else facts | {"continued": before}
    refused = [key for key in found if not _is_accepted(key, accepted)]
    _refuse(start, refused, facts, other)
    _check_examples(start, facts, other)
    ours, theirs = _flatten(facts), _flatten(other)
    changes = {key: {"from": theirs.get(key), "to": ours.get(key)} for key in found}
    run = digest(other if before is None else other | {"continued": before})
    return facts | {"continued": {"run": run, "checkpoint": start.name, "changes": changes}}


def _is_accepted(key: str, accepted: list[str]) -> bool:
    """Whether `accepted` names `key`, a part before it, or a key of `train` without that word."""
    names = {*accepted, *(f"train.{name}" for name in accepted)}
    return _is_within(key, names) and _is_within(key, ACCEPTABLE)


def _is_within(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _refuse(start: Path, keys: list[str], facts: dict[str, Any], other: dict[str, Any]) -> None:
    if not keys:
        return
    words = [words for words in differences(facts, other) if words.split(" is ")[0] in keys]
    acceptable = [key for key in keys if _is_within(key, ACCEPTABLE)]
    remedy = "to start from its adapter alone, set train.init_adapter instead"
    if acceptable == keys:
        names = sorted({"code" if _is_within(key, ["code"]) else key for key in keys})
        remedy = f"to go on all the same, set train.resume_accept to [{', '.join(names)}]; {remedy}"
    raise ValueError(
        f"train.resume_from is {start}, of another run: {_listed(words, limit=8)}; {remedy}"
    )


def _check_examples(start: Path, facts: dict[str, Any], other: dict[str, Any]) -> None:
    """Steps count examples: with another number in each, some are left out or seen twice."""
    here, there = (
        each["processes"] * each["train"][EXAMPLES[0]] * each["train"][EXAMPLES[1]]
        for each in (facts, other)
    )
    if here != there:
        raise ValueError(
            f"train.resume_from is {start}, whose steps hold {there} examples over "
            f"{other['processes']} processes; here they hold {here} over {facts['processes']}: "
            f"set train.{EXAMPLES[0]} and train.{EXAMPLES[1]} so that they hold {there}"
        )


def _listed(words: list[str], limit: int) -> str:
    more = [f"and {len(words) - limit} more"] if len(words) > limit else []
    return "; ".join(words[:limit] + more)


def _keys_that_differ(facts: dict[str, Any], other: dict[str, Any]) -> list[str]:
    ours, theirs = _flatten(facts), _flatten(other)
    # A user's own change is told before those of the code.
    ordered = sorted(ours | theirs, key=lambda key: (key.startswith("code."), key))
    return [key for key in ordered if ours.get(key) != theirs.get(key)]


def _sums(folder: Path, pattern: str) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob(pattern))}


@cache
def _code() -> dict[str, str]:
    found = (ROOT / name for name in CODE)
    paths = [
        path for each in found for path in (sorted(each.rglob("*.py")) if each.is_dir() else [each])
    ]
    return {path.relative_to(ROOT).as_posix(): code_sha256(path) for path in paths}


def code_sha256(path: Path) -> str:
    """The sha256 of what a Python file does: without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples.

    `ast.dump` writes what is empty in some versions of Python, and leaves it out in others.
    """
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    body = fields.get("body")
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
        fields["body"] = body[1:]
    return type(node).__name__, [(name, _plain(value)) for name, value in fields.items()]


def _flatten(facts: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(facts, dict):
        return {prefix: facts}
    parts = ((f"{prefix}.{key}" if prefix else key, value) for key, value in facts.items())
    return {name: leaf for key, value in parts for name, leaf in _flatten(value, key).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
