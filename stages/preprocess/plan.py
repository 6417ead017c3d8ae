"""The tasks of the two passes, and the fingerprint of everything that shapes what they make."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from finetune.params import Params
from finetune.records import read_group, row_groups
from finetune.text.prompts import make_words
from stages.preprocess.collect import Collect
from stages.preprocess.documents import check_columns, parse_documents
from stages.preprocess.extract import check_selectors, is_captured
from stages.preprocess.parts import Parts
from stages.preprocess.splits import missing_splits
from stages.preprocess.tokenise import Tokenise

_CODE = Path(__file__).parents[2]


def collect_tasks(params: Params, raw: Path, folder: Path) -> list[Collect]:
    """One task for each row group of each source, by name. Raises ValueError for a column that a
    source lacks, from the first rows of each of its files."""
    check_selectors(params.preprocess.selectors)
    tasks: list[Collect] = []
    for source in params.data.names():
        templates = parse_documents(params.documents[source].templates(), source)
        groups = row_groups(raw / source)
        first = [next(each) for _, each in groupby(groups, key=lambda group: group[0])]
        rows = (each.row for path, group in first for each in read_group(path, group))
        fields = ("title", "text", *params.preprocess.selectors.get(source, ()))
        captured = dict.fromkeys(fields)
        check_columns(
            templates,
            ({**row, **captured} if is_captured(row, raw / source) else row for row in rows),
            source,
        )
        missing = missing_splits(own_splits(params, source))
        tasks += [
            Collect(
                folder / f"documents-{source}-{number:06d}.arrow",
                source,
                path,
                group,
                templates,
                params.documents[source].cut,
                missing,
                params.preprocess,
            )
            for number, (path, group) in enumerate(groups)
        ]
    return tasks


def tokenise_tasks(
    params: Params, base: Path, parts: Parts, keep: np.ndarray, folder: Path
) -> list[Tokenise]:
    """One task for each part of documents, without the leak files'."""
    path = folder / "keep.npy"
    np.save(path, keep)
    return [
        Tokenise(
            documents.with_name(documents.name.replace("documents-", "examples-")),
            documents,
            source,
            start,
            path,
            base,
            make_words(params.prompt, params.documents[source]),
            params.preprocess,
        )
        for documents, source, start in parts.each()
    ]


def own_splits(params: Params, source: str) -> list[str]:
    """The splits that a source comes with, by params."""
    kinds = (params.data.files, params.data.urls, params.data.hub)
    files = next((kind[source].files for kind in kinds if source in kind), {})
    return [split for split in files if split != "all"]


def fingerprint(params: Params, base: Path, raw: Path) -> str:
    """16 hex digits of settings, code, tokenizer and fetched rows."""
    digest = hashlib.sha256()
    settings = {name: asdict(getattr(params, name)) for name in ("prompt", "preprocess", "data")}
    settings["documents"] = {name: asdict(each) for name, each in params.documents.items()}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for path in _inputs(params, base, raw):
        digest.update(f"\n{path.name} ".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _inputs(params: Params, base: Path, raw: Path) -> Iterator[Path]:
    """The files that shape the parts; a source's manifest holds the sums of its rows."""
    yield from sorted(each for each in base.iterdir() if each.is_file())
    for source in params.data.names():
        manifest = raw / source / "manifest.json"
        yield from [manifest] if manifest.exists() else sorted((raw / source).glob("rows-*"))
    yield from sorted(Path(each) for each in params.preprocess.leak_files)
    yield from sorted((_CODE / "finetune").glob("*.py"))
    yield from sorted((_CODE / "stages/preprocess").glob("*.py"))
