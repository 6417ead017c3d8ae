"""What the fetch of every kind of source has in common: parts in, rows and a manifest out."""

import argparse
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from finetune import params
from finetune.records import Row, RowWriter
from stages.fetch import readers

log = logging.getLogger("fetch")


@dataclass(frozen=True)
class Part:
    """One file of a source: its split, the name it is cited by, how to open it, what proves it.

    `columns` are those that are needed, where the format can leave others unread; empty means all.
    """

    split: str
    name: str
    open: Callable[[], BinaryIO]
    proof: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


def parse_arguments(description: str) -> tuple[str, Path]:
    """The source's name in params.yaml, and the folder to write."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    return arguments.name, arguments.out


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
) -> None:
    """Write the rows of all parts, and the manifest, to a folder that appears only when whole.

    `select` gets a row and where it stood, and returns what is kept of it, or None to filter it
    out. At most `max_rows` rows are kept of each split.
    """
    counts: Counter[str] = Counter()
    with RowWriter(out) as writer:
        files = [
            write_part(writer, part, source, select, max_rows, counts)
            for part in parts
            if max_rows is None or counts[_key(part)] < max_rows
        ]
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
) -> dict[str, Any]:
    """Write the rows of one file; returns its entry in the manifest."""
    before = writer.count
    with part.open() as file, tqdm(desc=part.name, unit=" rows", disable=None) as progress:
        for record in readers.read(file, part.name, counts, part.columns):
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


def _key(part: Part) -> str:
    return f"rows of {part.split}" if part.split else "rows"


def told(counts: Counter[str]) -> str:
    """The counts that a person should see, as `; 3 x empty document, left out`."""
    shown = {what: count for what, count in counts.items() if not what.startswith("rows")}
    return "".join(f"; {count} x {what}" for what, count in sorted(shown.items()))
