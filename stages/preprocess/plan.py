"""The two passes over the data, their tasks, and the fingerprint of all that shapes their files."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from finetune.params import Params
from finetune.records import read_group, row_groups
from finetune.text.prompts import make_words
from stages.preprocess.collect import Collect, collect
from stages.preprocess.custom import load_steps
from stages.preprocess.documents import (
    Template,
    check_columns,
    is_captured,
    parse_documents,
    parse_template,
)
from stages.preprocess.documents import root as root_of
from stages.preprocess.examples import Examples, index_examples
from stages.preprocess.leaks import write_leaks
from stages.preprocess.mixture import unused_sources
from stages.preprocess.shards import Shards, index_shards
from stages.preprocess.steps import Source
from stages.preprocess.tokenise import Tokenise, tokenise
from stages.preprocess.work import Work

_CODE = Path(__file__).parents[2]


def read_documents(work: Work, params: Params, raw: Path) -> Shards:
    """First pass: every source's rows as cleaned documents."""
    sources = [read_source(params, name, raw) for name in params.data.names()]
    leaks = write_leaks(params.preprocess, work.folder)
    tasks = [task for each in sources for task in _collect_tasks(each, work.folder, leaks)]
    work.run("read", collect, tasks)
    return index_shards([task.path for task in tasks], [task.source.name for task in tasks])


def make_examples(
    work: Work, params: Params, base: Path, shards: Shards, splits: np.ndarray
) -> Examples:
    """Second pass: the documents that stay, as examples."""
    tasks = _tokenise_tasks(params, base, shards, splits, work.folder)
    work.run("tokenise", tokenise, tasks)
    return index_examples([task.path for task in tasks], [task.source for task in tasks])


def read_source(params: Params, name: str, raw: Path) -> Source:
    """What params say about a source. Raises ValueError for a template that is none, a column that
    no row has, and a step that cannot be one."""
    if params.preprocess.selectors:
        from stages.preprocess.extract import check_selectors  # as in steps.read_page

        check_selectors(params.preprocess.selectors)
    entry = params.documents[name]
    templates = parse_documents(entry.templates(), name)
    extra = {
        key: parse_template(text, f"documents.{name}.{key}")
        for key, text in (("group", entry.group), ("label", entry.label))
        if text
    }
    on_rows, _ = load_steps(entry.named_steps(), name)
    chosen = {f"identity {each}": Template((("", each),)) for each in entry.identity or ()}
    if not on_rows:  # which may make columns of their own
        _check(params, raw / name, {**templates, **extra, **chosen}, name)
    return Source(
        name=name,
        folder=raw / name,
        templates=templates,
        cut=entry.cut,
        group=extra.get("group"),
        label=extra.get("label"),
        identity=tuple(entry.identity or ()),
        normalise=entry.normalise,
        steps=tuple(entry.named_steps()),
        settings=params.preprocess,
    )


def _check(params: Params, folder: Path, templates: dict[str, Template], name: str) -> None:
    """Look for the columns that templates name, in all rows if need be."""
    captured = dict.fromkeys(("title", "text", *params.preprocess.selectors.get(name, ())))
    wanted = {root_of(column) for each in templates.values() for column in each.columns}
    wanted |= {column for each in templates.values() for column in each.columns}

    def rows() -> Iterator[dict[str, Any]]:
        missing = set(wanted)
        for path, group in row_groups(folder):
            for each in read_group(path, group):
                row = each.row
                yield {**row, **captured} if is_captured(row, folder) else row
                missing -= row.keys() | (captured.keys() if "warc_offset" in row else set())
                if not any(
                    column in missing and root_of(column) in missing
                    for template in templates.values()
                    for column in template.columns
                ):
                    return

    check_columns(templates, rows(), name)


def _collect_tasks(source: Source, folder: Path, leaks: Path | None) -> list[Collect]:
    """One task for each row group of a source."""
    return [
        Collect(
            path=folder / f"documents-{source.name}-{number:06d}.arrow",
            source=source,
            rows=path,
            group=group,
            leaks=leaks,
        )
        for number, (path, group) in enumerate(row_groups(source.folder))
    ]


def _tokenise_tasks(
    params: Params, base: Path, shards: Shards, splits: np.ndarray, folder: Path
) -> list[Tokenise]:
    """One task for each shard of documents."""
    path = folder / "splits.npy"
    np.save(path, splits)
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
        for documents, source, start in shards.each()
    ]


def fingerprint(params: Params, base: Path, raw: Path) -> str:
    """16 hex digits of settings, code, tokenizer and fetched rows."""
    digest = hashlib.sha256()
    settings = {name: asdict(getattr(params, name)) for name in ("prompt", "preprocess", "data")}
    settings["unused"] = unused_sources(params)
    settings["documents"] = {name: asdict(each) for name, each in params.documents.items()}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for path in _inputs(params, base, raw):
        digest.update(f"\n{path.name} ".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _inputs(params: Params, base: Path, raw: Path) -> Iterator[Path]:
    """The files that shape the shards; a source's manifest holds the sums of its rows."""
    yield from sorted(each for each in base.iterdir() if each.is_file())
    for source in params.data.names():
        manifest = raw / source / "manifest.json"
        yield from [manifest] if manifest.exists() else sorted((raw / source).glob("rows-*"))
    yield from sorted(Path(each) for each in params.preprocess.leak_files)
    yield from sorted((_CODE / "finetune").glob("*.py"))
    yield from _code([_CODE / "finetune/text", _CODE / "stages/preprocess", Path("steps")])


def _code(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))
