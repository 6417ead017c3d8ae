"""Fetch a Hugging Face dataset at its pinned commit: python -m stages.fetch.hub NAME OUT.

Whole files go to the hub's cache and are compared with the sums of the commit. With `max_rows`
files are read from the hub as a stream, and no further than needed.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.utils import glob_translate
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.sha import git_hash

from finetune import errors, params
from finetune.hub_client import clear_errors, retried
from finetune.records import file_sha256
from stages.fetch.sources import Part, arguments, check_splits, write_source

STREAM_BLOCK_BYTES = 8 << 20


def main() -> None:
    name, out, source = arguments(__doc__, "hub")
    select = selector(source)
    with clear_errors(source.name, source.revision, "dataset"):
        parts = find_parts(source)
        write_source(out, name, "hub", source, parts, select, source.max_rows)


def selector(source: params.Hub) -> Callable[[dict, str], dict | None]:
    """What a row must pass: each column of `filter` matches its regular expression (re.search).

    A column that is no text is matched as JSON; null never matches. Of a row that passes,
    `columns` are kept, or all if there are none. A row without one of the columns is an error.
    """
    rules = {column: _compiled(column, pattern) for column, pattern in source.filter.items()}

    def select(row: dict[str, Any], where: str) -> dict[str, Any] | None:
        for column in (*rules, *source.columns):
            if column not in row:
                raise ValueError(f"{where} has no column {column!r}, only {', '.join(row)}")
        if not all(_matches(rule, row[column]) for column, rule in rules.items()):
            return None
        return {column: row[column] for column in source.columns} if source.columns else row

    return select


def _compiled(column: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"filter.{column} is {pattern!r}, no regular expression: {error}; "
            "for the text itself put a backslash before . * + ? ( ) [ ] { } | ^ $"
        ) from None


def _matches(rule: re.Pattern[str], value: Any) -> bool:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value is not None and rule.search(text) is not None


def find_parts(source: params.Hub) -> list[Part]:
    """The files of the commit, sorted by split and name; ValueError for none.

    They are those that match `files`, or those of the dataset's own `splits`, as `datasets` finds
    them. What needs `datasets` to be read is a part of rows instead.
    """
    api = HfApi()
    info = retried(
        lambda: api.dataset_info(source.name, revision=source.revision, files_metadata=True)
    )
    if info.sha != source.revision:
        raise ValueError(f"{source.name}: the hub gave commit {info.sha}, not {source.revision}")
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    if source.splits:
        return check_splits(list(_defined(source, files)))
    parts = []
    for split, pattern in sorted(source.files.items()):
        found = sorted(filter(re.compile(glob_translate(pattern)).match, files))
        if not found:
            raise ValueError(
                f"{source.name}@{source.revision} has no file that matches {split}: {pattern}; "
                f"it has {', '.join(sorted(files)[:20])}"
            )
        parts += [_part(split, source, files[path]) for path in found]
    return check_splits(parts)


def _defined(source: params.Hub, files: dict[str, RepoSibling]) -> Iterator[Part]:
    from stages.fetch.defined import Defined  # `datasets` takes seconds to import

    dataset = Defined(source)
    for split, theirs in sorted(source.splits.items()):
        if (paths := dataset.files(theirs)) is not None:
            yield from (_part(split, source, files[path]) for path in paths)
        else:
            yield Part(split, dataset.cite(theirs), rows=partial(dataset.rows, theirs))


def _part(split: str, source: params.Hub, file: RepoSibling) -> Part:
    name = f"{source.name}@{source.revision}:{file.rfilename}"
    sums = {"git_sha1": file.blob_id} if file.lfs is None else {"sha256": file.lfs.sha256}
    proof = {"bytes": file.size, **sums}
    columns = tuple(dict.fromkeys([*source.columns, *source.filter])) if source.columns else ()
    rest = (columns, source.encoding or "")
    if source.max_rows is None:
        return Part(split, name, lambda: _download(source, file).open("rb"), proof, *rest)
    proof["streamed"] = True
    return Part(split, name, lambda: _stream(source, file.rfilename), proof, *rest)


def _download(source: params.Hub, file: RepoSibling) -> Path:
    """The file in the hub's cache, fetched where it is missing, and its sum checked."""
    where = {"repo_type": "dataset", "revision": source.revision}
    path = Path(retried(lambda: hf_hub_download(source.name, file.rfilename, **where)))
    if file.lfs is None:
        is_same = git_hash(path.read_bytes()) == file.blob_id
    else:
        is_same = file_sha256(path) == file.lfs.sha256
    if not is_same:
        path.resolve().unlink()
        raise ValueError(
            f"{file.rfilename} is not what {source.name}@{source.revision} has: run again"
        )
    return path


def _stream(source: params.Hub, path: str) -> BinaryIO:
    """The file as a stream of ranges, each asked for again when the connection breaks."""
    address = f"datasets/{source.name}@{source.revision}/{path}"
    return retried(lambda: HfFileSystem().open(address, "rb", block_size=STREAM_BLOCK_BYTES))


if __name__ == "__main__":
    errors.run(main)
