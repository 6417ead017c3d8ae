"""What makes a run this run: everything that shapes its trajectory, as readable JSON."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.model.load import resolve
from finetune.params import Params
from finetune.records import file_sha256

ROOT = Path(__file__).resolve().parents[2]
CODE = (
    "finetune/checkpoints.py",
    "finetune/flat",
    "finetune/model/load.py",
    "finetune/text/tokens.py",
    "stages/train",
)
# What may change in the middle of a run: where it starts from, who watches it, what is kept of it.
FREE = {"resume_from", "report_to", "save_total_limit", "memory"}


def describe_run(params: Params, base: Path, prepared: Path, processes: int) -> dict[str, Any]:
    """The run's facts; two runs with equal facts are the same run, interrupted or not."""
    train = {key: value for key, value in asdict(params.train).items() if key not in FREE}
    if params.train.init_adapter:
        train["init_adapter"] = _sums(Path(params.train.init_adapter), "adapter_*")
    return {
        "seed": params.seed,
        "base": file_sha256(base / "manifest.json"),
        "data": {split: _sums(prepared / split, "*.arrow") for split in ("train", "validation")},
        "quantization": asdict(params.quantization),
        "compute": asdict(resolve(params.compute)),
        "lora": asdict(params.lora),
        "train": train,
        "processes": processes,
        "code": _code(),
    }


def digest(facts: dict[str, Any]) -> str:
    """A short name for `facts`: 16 hex digits of their sha256."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def differences(facts: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """`key is A here, B there` for every key that differs, dotted."""
    ours, theirs = _flatten(facts), _flatten(other)
    # A user's own change is told before those of the code.
    ordered = sorted(ours | theirs, key=lambda key: (key.startswith("code."), key))
    keys = [key for key in ordered if ours.get(key) != theirs.get(key)]
    return [
        f"{key} is {_short(ours.get(key))} here, {_short(theirs.get(key))} there" for key in keys
    ]


def _sums(folder: Path, pattern: str) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob(pattern))}


def _code() -> dict[str, str]:
    found = (ROOT / name for name in CODE)
    paths = [
        path for each in found for path in (sorted(each.rglob("*.py")) if each.is_dir() else [each])
    ]
    return {path.relative_to(ROOT).as_posix(): file_sha256(path) for path in paths}


def _flatten(facts: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(facts, dict):
        return {prefix: facts}
    parts = ((f"{prefix}.{key}" if prefix else key, value) for key, value in facts.items())
    return {name: leaf for key, value in parts for name, leaf in _flatten(value, key).items()}


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 else text
