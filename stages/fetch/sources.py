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
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from finetune import params
from finetune.records import Row, RowWriter
from stages.fetch import readers
from stages.fetch.captures import CAPTURE, CaptureWriter
from stages.fetch.streams import Record

MOST_TOLD = 50
Select = Callable[[dict, str], dict | None]  # a row and where it stood -> what is kept of it
log = logging.getLogger("fetch")


@dataclass
class Part:
    """One file of a source: its split, the name it is cited by, how to open it, what proves it.

    The split `all` of params.yaml is "": preprocess draws it. `columns` are those that are needed,
    where the format can leave others unread; empty means all. `encoding` is that of text, if not
    UTF-8. `rows` gives the rows of what is no file.
    """

    split: str
    name: str
    open: Callable[[], BinaryIO] = io.BytesIO
    proof: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    encoding: str = ""
    rows: Callable[[], Iterator[Record]] | None = None

    def __post_init__(self) -> None:
        self.split = "" if self.split == "all" else self.split


def arguments(description: str, kind: str) -> tuple[str, Path, Any]:
    """The source's name in params.yaml, the folder to write, and the source itself."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    given, data = parser.parse_args(), params.load().data
    remove_unnamed(given.out.parent, data.names())
    sources = getattr(data, kind)
    if given.name not in sources:
        raise ValueError(
            f"params.yaml: data.{kind} has no {given.name}, only {', '.join(sources) or 'none'}"
        )
    return given.name, given.out, sources[given.name]


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
    select: Select = lambda row, where: row,
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
    with RowWriter(out) as writer, (writer.partial / CAPTURE).open("wb") as capture:
        keep = CaptureWriter(capture).keep
        for part in parts:
            key, before = f"rows of {part.split}" if part.split else "rows", writer.count
            left = None if max_rows is None else max_rows - counts[key]
            if left == 0:
                continue
            try:
                with closing(_rows(part, source, select, counts, keep)) as rows:
                    for row in islice(rows, left):
                        writer.write(row)
                        counts[key] += 1
            except ValueError as error:
                if kind != "files":  # the next one would have to be downloaded
                    raise
                refused.append(str(error))
            entry = {"path": part.name, "split": part.split, "rows": writer.count - before}
            files.append({**entry, **part.proof})
        raise_all(refused)
        if not capture.tell():  # there was no page
            (writer.partial / CAPTURE).unlink()
        if not writer.count:
            raise ValueError(f"data.{kind}.{name}: no row is left{told(counts)}")
        manifest = {"source": name, "kind": kind, "parameters": asdict(source), "files": files}
        writer.write_manifest({**manifest, "counts": {**counts, "rows": writer.count}})
    log.info("fetch %s: %d rows of %d file(s)%s", name, writer.count, len(files), told(counts))


def _rows(
    part: Part, source: Any, select: Select, counts: Counter[str], keep: readers.KeepPage
) -> Iterator[Row]:
    """The rows of one file that are kept; those that are not are counted."""
    with part.open() as file, tqdm(desc=part.name, unit=" rows", disable=None) as progress:
        if part.rows is not None:
            records = readers.mended(part.rows(), counts)
        else:
            records = readers.read(file, part.name, counts, part.columns, part.encoding, keep)
        for record in records:
            where = part.name + record.place
            row = select(record.row, where)
            progress.update()
            if row is None:
                counts["filtered out"] += 1
            else:
                yield Row(row, part.split, where, record.sha256, source.license, source.evidence)


def raise_all(refused: list[str]) -> None:
    """Raise one ValueError, of one line, for all files that are refused; none for none."""
    if len(refused) == 1:
        raise ValueError(refused[0])
    if refused:
        more = f"; and {len(refused) - MOST_TOLD} more" if len(refused) > MOST_TOLD else ""
        each = "; ".join(refused[:MOST_TOLD])
        raise ValueError(f"{len(refused)} files cannot be read: {each}{more}")


def told(counts: Counter[str]) -> str:
    """The counts that a person should see, as `; 3 x empty document, left out`."""
    shown = {what: count for what, count in counts.items() if not what.startswith("rows")}
    return "".join(f"; {count} x {what}" for what, count in sorted(shown.items()))
