"""What the fetch of every kind of source has in common: parts in, rows and a manifest out."""

import argparse
import io
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from finetune import params
from finetune.records import Row, RowWriter
from stages.fetch import readers
from stages.fetch.captures import PageWriter
from stages.fetch.streams import Record

MOST_TOLD = 50
log = logging.getLogger("fetch")


@dataclass(frozen=True)
class Part:
    """One file of a source: its split, the name it is cited by, how to open it, what proves it.

    `columns` are those that are needed, where the format can leave others unread; empty means all.
    `encoding` is that of text, if not UTF-8. `rows` gives the rows of what is no file.
    """

    split: str
    name: str
    open: Callable[[], BinaryIO] = io.BytesIO
    proof: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    encoding: str = ""
    rows: Callable[[], Iterator[Record]] | None = None


def parse_arguments(description: str) -> tuple[str, Path]:
    """The source's name in params.yaml, and the folder to write."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    remove_unnamed(arguments.out.parent, params.load().data.names())
    return arguments.name, arguments.out


def remove_unnamed(folder: Path, names: list[str]) -> None:
    """Remove sources from `folder` that params.yaml no longer names: it is a dependency as a whole.

    Only what a fetch wrote, by its manifest, is removed (DVC's cache still has it); anything else
    is told.
    """
    for path in sorted(folder.glob("[!.]*/")):
        if path.name in names:
            continue
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            is_ours = manifest["source"] == path.name and "kind" in manifest
        except (OSError, ValueError, KeyError, TypeError):
            is_ours = False
        if is_ours and not path.is_symlink():
            shutil.rmtree(path)
            log.info("removed %s: params.yaml has no source of that name", path)
        else:
            log.warning("%s is no source of params.yaml and not written by a fetch: move it", path)


def find(kind: str, name: str) -> Any:
    """The source of that kind and name in params.yaml."""
    sources = getattr(params.load().data, kind)
    if name not in sources:
        raise ValueError(
            f"params.yaml: data.{kind} has no {name}, only {', '.join(sources) or 'none'}"
        )
    return sources[name]


def check_splits(parts: list[Part]) -> list[Part]:
    """The parts; ValueError if two splits claim one file."""
    owners: dict[str, str] = {}
    for part in parts:
        owner = owners.setdefault(part.name, part.split)
        if owner != part.split:
            raise ValueError(f"{part.name} belongs to two splits: {owner} and {part.split}")
    return parts


def write_source(
    out: Path,
    name: str,
    kind: str,
    source: Any,
    parts: list[Part],
    select: Callable[[dict, str], dict | None] = lambda row, where: row,
    max_rows: int | None = None,
    counts: Counter[str] | None = None,
) -> None:
    """Write the rows of all parts, and the manifest, to a folder that appears only when whole.

    `select` gets a row and where it stood, and returns what is kept of it, or None to filter it
    out. At most `max_rows` rows are kept of each split. What is wrong with several files is one
    ValueError that names them all.
    """
    counts = Counter() if counts is None else counts
    files, refused = [], []
    with RowWriter(out) as writer, closing(PageWriter(writer.partial)) as pages:
        for part in parts:
            if max_rows is not None and counts[_key(part)] >= max_rows:
                continue
            try:
                files.append(write_part(writer, part, source, select, max_rows, counts, pages))
            except ValueError as error:
                if kind != "files":  # the next one would have to be downloaded
                    raise
                refused.append(str(error))
        raise_all(refused)
        if not writer.count:
            raise ValueError(f"data.{kind}.{name}: no row is left{told(counts)}")
        manifest = {"source": name, "kind": kind, "parameters": asdict(source), "files": files}
        writer.write_manifest({**manifest, "counts": {**counts, "rows": writer.count}})
    log.info("fetch %s: %d rows of %d file(s)%s", name, writer.count, len(files), told(counts))


def write_part(
    writer: RowWriter,
    part: Part,
    source: Any,
    select: Callable[[dict, str], dict | None],
    max_rows: int | None,
    counts: Counter[str],
    pages: PageWriter,
) -> dict[str, Any]:
    """Write the rows of one file; returns its entry in the manifest."""
    before = writer.count
    with part.open() as file, tqdm(desc=part.name, unit=" rows", disable=None) as progress:
        options = (part.columns, part.encoding, pages.keep)
        if part.rows is not None:
            records = readers.mended(part.rows(), counts)
        else:
            records = readers.read(file, part.name, counts, *options)
        for record in records:
            where = part.name + record.place
            row = select(record.row, where)
            progress.update()
            if row is None:
                counts["filtered out"] += 1
                continue
            raw = Row(row, part.split, where, record.sha256, source.license, source.evidence)
            writer.write(raw)
            counts[_key(part)] += 1
            if max_rows is not None and counts[_key(part)] >= max_rows:
                break
    return {"path": part.name, "split": part.split, "rows": writer.count - before, **part.proof}


def raise_all(refused: list[str]) -> None:
    """Raise one ValueError, of one line, for all files that are refused; none for none."""
    if len(refused) == 1:
        raise ValueError(refused[0])
    if refused:
        more = f"; and {len(refused) - MOST_TOLD} more" if len(refused) > MOST_TOLD else ""
        each = "; ".join(refused[:MOST_TOLD])
        raise ValueError(f"{len(refused)} files cannot be read: {each}{more}")


def _key(part: Part) -> str:
    return f"rows of {part.split}" if part.split else "rows"


def told(counts: Counter[str]) -> str:
    """The counts that a person should see, as `; 3 x empty document, left out`."""
    shown = {what: count for what, count in counts.items() if not what.startswith("rows")}
    return "".join(f"; {count} x {what}" for what, count in sorted(shown.items()))
