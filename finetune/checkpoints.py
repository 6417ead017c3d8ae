"""Folders that are whole or not there: sealed with the sums of their files, named by their step."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from finetune.records import file_sha256, write_json

SUMS = "checksums.json"


def seal(partial: Path, folder: Path, **facts: Any) -> None:
    """Write the sums of all files of `partial`, with `facts`, and give it its final name.

    A folder of that name is replaced. Killed at any moment, this leaves `folder` whole or absent.
    """
    files = {name: _describe(partial / name) for name in _names(partial)}
    write_json(partial / SUMS, {**facts, "files": files})
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old)
    else:
        partial.rename(folder)


def find_damage(folder: Path) -> str | None:
    """The first missing or changed file of a sealed folder, in words; None if it is whole."""
    try:
        files = json.loads((folder / SUMS).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{folder / SUMS} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{folder / SUMS} is not readable"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if _describe(path) != expected:
            return f"{path} is not what was saved (sha256 differs)"
    return None


def seal_of(folder: Path) -> str:
    """The sha256 of a sealed folder's sums: two folders of the same files have the same."""
    return file_sha256(folder / SUMS)


def list_steps(folder: Path) -> dict[int, Path]:
    """Step -> `step-N` folder, in the order of the steps."""
    matches = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*")]
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def read_step(folder: Path) -> int:
    """The step that a sealed checkpoint was saved at."""
    return int(json.loads((folder / SUMS).read_text(encoding="utf-8"))["step"])


def copy_sealed(source: Path, target: Path) -> None:
    """Copy a sealed folder, all or nothing."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def _describe(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
