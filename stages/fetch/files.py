"""Fetch a source of files on this machine: python -m stages.fetch.files NAME OUT."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from finetune import errors, params
from finetune.records import SPLITS, file_sha256
from stages.fetch import warcs
from stages.fetch.readers import format_of
from stages.fetch.sources import Part, arguments, check_splits, raise_all, told, write_source

WARC = ".warc.gz"


def main() -> None:
    name, out, source = arguments(__doc__, "files")
    counts: Counter[str] = Counter()
    parts = find_parts(source, counts)
    captured = [part.name.endswith(WARC) for part in parts]
    if all(captured):
        warcs.copy(out, name, source, parts, counts)
    elif any(captured):
        raise ValueError(f"data.files.{name} has WARC files and others: make two sources of them")
    else:
        write_source(out, name, "files", source, parts, counts=counts)


def find_parts(source: params.Files, counts: Counter[str]) -> list[Part]:
    """The files of a source, sorted by split and name; links to nothing are counted.

    Raises ValueError for a path that does not exist, a pattern that finds nothing or leaves the
    folder, a link out of the folder, a file that two splits claim, and formats that cannot be read.
    """
    root = Path(source.path)
    if root.is_file():
        if source.files:
            raise ValueError(f"{root} is a file: leave `files` empty, or name its folder as `path`")
        return [_part("", root, _cited(root), source)]
    if not root.is_dir():
        raise ValueError(f"{root} does not exist; {_where(source.path)}")
    saved = _saved_by_datasets(root)
    if not source.files and not saved:
        raise ValueError(f"{root} is a folder: say in `files` which, as in all: '**/*.jsonl'")
    patterns = sorted(source.files.items()) or saved
    found = [each for split, pattern in patterns for each in _match(root, split, pattern, counts)]
    _check_formats([name for _, _, name in found])
    return check_splits([_part(*each, source) for each in found])


def _where(path: str) -> str:
    """How a path is meant, and where it is if another folder than this one has it."""
    root = Path(os.environ.get("DVC_ROOT", "."))
    if not Path(path).is_absolute() and (root / path).exists():
        return (
            "under --temp and --queue only what Git or DVC tracks is there: write the absolute "
            f"path, {(root / path).resolve()}, or track it, as with dvc add"
        )
    return "data.files.*.path is absolute, or relative to the root of the repository"


def _saved_by_datasets(root: Path) -> list[tuple[str, str]]:
    """Split and pattern of the files in a folder of `save_to_disk`; none if it is no such."""
    if (root / "state.json").is_file():
        return [("all", "*.arrow")]
    if (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if set(splits) <= set(SPLITS):
            return [(split, f"{split}/*.arrow") for split in sorted(splits)]
        raise ValueError(
            f"{root} has the splits {', '.join(splits)}: say in `files` what they are, "
            f"as in train: {splits[0]}/*.arrow"
        )
    return []


def _check_formats(names: list[str]) -> None:
    """Raise one ValueError that names every file that cannot be read, each with its remedy."""
    refused = []
    for name in names:
        try:
            format_of(name) if not name.endswith(WARC) else None
        except ValueError as error:
            refused.append(str(error))
    raise_all(refused)


def _match(
    root: Path, split: str, pattern: str, counts: Counter[str]
) -> Iterator[tuple[str, Path, str]]:
    """The files under a folder that match; hidden ones (.git, .gitignore) only where it says so."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise ValueError(f"files.{split} is {pattern!r}: it must stay inside {root}")
    inside, found = root.resolve(), False
    for path in sorted(root.glob(pattern)):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts) and pattern[0] != "."
        if path.is_symlink() and not path.exists():
            counts["link to a file that is not there, left out"] += 1
        if hidden or not path.is_file():
            continue
        if not path.resolve().is_relative_to(inside):
            raise ValueError(f"{path} is a link out of {root}; copy the file into the folder")
        found = True
        name = f"{_cited(root)}/{relative.as_posix()}"
        yield split, path, name
    if not found:
        raise ValueError(f"{root} has no file that matches files.{split}: {pattern}{told(counts)}")


def _cited(path: Path) -> str:
    """The path as params.yaml gives it, or its last part: an out names no machine's folders."""
    return path.name if path.is_absolute() else path.as_posix()


def _part(split: str, path: Path, name: str, source: params.Files) -> Part:
    proof = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    return Part(split, name, lambda: path.open("rb"), proof, (), source.encoding or "")


if __name__ == "__main__":
    errors.run(main)
