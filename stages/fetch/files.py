"""Fetch a source of files on this machine: python -m stages.fetch.files NAME OUT."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from finetune import errors, params
from finetune.records import file_sha256
from stages.fetch import captures
from stages.fetch.sources import Part, check_splits, find, parse_arguments, write_source


def main() -> None:
    name, out = parse_arguments(__doc__)
    source = find("files", name)
    parts = find_parts(source)
    captured = [part.name.endswith(".warc.gz") for part in parts]
    if all(captured):
        captures.copy(out, name, source, parts)
    elif any(captured):
        raise ValueError(f"data.files.{name} has WARC files and others: make two sources of them")
    else:
        write_source(out, name, "files", source, parts)


def find_parts(source: params.Files) -> list[Part]:
    """The files of a source, sorted by split and name.

    Raises ValueError for a path that does not exist, a pattern that finds nothing or leaves the
    folder, a link out of the folder, and a file that two splits claim.
    """
    root = Path(source.path)
    if root.is_file():
        if source.files:
            raise ValueError(f"{root} is a file: leave `files` empty, or name its folder as `path`")
        return [_part("", root, _cited(root))]
    if not root.is_dir():
        raise ValueError(f"{root} does not exist; data.files.*.path is relative to the repository")
    if not source.files:
        raise ValueError(f"{root} is a folder: say in `files` which, as in all: '**/*.jsonl'")
    patterns = sorted(source.files.items())
    parts = [part for split, pattern in patterns for part in _match(root, split, pattern)]
    return check_splits(parts)


def _match(root: Path, split: str, pattern: str) -> Iterator[Part]:
    """The files under a folder that match; hidden ones (.git, .gitignore) only where it says so."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise ValueError(f"files.{split} is {pattern!r}: it must stay inside {root}")
    inside, found = root.resolve(), False
    for path in sorted(root.glob(pattern)):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") for part in relative.parts) and pattern[0] != "."
        if hidden or not path.is_file():
            continue
        if not path.resolve().is_relative_to(inside):
            raise ValueError(f"{path} is a link out of {root}; copy the file into the folder")
        found = True
        name = f"{_cited(root)}/{relative.as_posix()}"
        yield _part("" if split == "all" else split, path, name)
    if not found:
        raise ValueError(f"{root} has no file that matches files.{split}: {pattern}")


def _cited(path: Path) -> str:
    """The path as params.yaml gives it, or its last part: an out names no machine's folders."""
    return path.name if path.is_absolute() else path.as_posix()


def _part(split: str, path: Path, name: str) -> Part:
    proof = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    return Part(split, name, lambda: path.open("rb"), proof)


if __name__ == "__main__":
    errors.run(main)
