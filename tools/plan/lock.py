"""What dvc.lock says of the last run: are its outs those that a params file would give?

Values are compared as DVC stores them, so a preset can be asked about too, not params.yaml alone.
"""

import hashlib
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

MISSING = object()


class Lock:
    """dvc.lock beside `root`; without the file, of nothing."""

    def __init__(self, root: Path) -> None:
        self._root = root
        path = root / "dvc.lock"
        found = YAML(typ="safe").load(path) if path.exists() else None
        self._stages: dict[str, Any] = (found or {}).get("stages") or {}

    def differences(self, stage: str, values: dict[str, Any]) -> list[str] | None:
        """The keys of `values`, a whole params file, that differ from those `stage` ran with.

        None where it never ran.
        """
        if stage not in self._stages:
            return None
        return sorted(
            different
            for names in (self._stages[stage].get("params") or {}).values()
            for name, value in names.items()
            for different in _compare(name, value, _value_of(values, name))
        )

    def params(self, stage: str) -> dict[str, Any]:
        """Key -> value of what `stage` ran with."""
        files = (self._stages.get(stage, {}).get("params") or {}).values()
        return {name: value for names in files for name, value in names.items()}

    def is_out(self, stage: str, path: str) -> bool:
        """Whether the file `path` is here, with the bytes that `stage` wrote."""
        outs = self._stages.get(stage, {}).get("outs") or []
        sums = [out.get("md5") for out in outs if out["path"] == path]
        file = self._root / path
        return bool(sums) and file.is_file() and sums[0] == _md5(file)

    def changed_data(self, files: dict[str, dict[str, Any]]) -> list[str]:
        """Of `files`, the section data.files, the paths of another size than fetch has read."""
        read = {
            dep["path"]: dep.get("size")
            for name in files
            for dep in self._stages.get(f"fetch@{name}", {}).get("deps") or []
        }
        paths = [source["path"] for source in files.values()]
        return [path for path in paths if _size(self._root / path) != read.get(path)]


def _compare(name: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        pairs = ((f"{name}.{k}", before.get(k, MISSING), now.get(k, MISSING)) for k in keys)
        return [each for pair in pairs for each in _compare(*pair)]
    return [] if before == now else [name]


def _value_of(values: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        values = values.get(part, MISSING) if isinstance(values, dict) else MISSING
    return values


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _size(path: Path) -> int | None:
    """Bytes of a file, or of all files under a folder."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.exists() else None
