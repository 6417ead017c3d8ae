"""What fetch writes and preprocess reads: rows with their origin and licence, in Parquet shards."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "validation", "test")
ROWS_PER_GROUP, CHARACTERS_PER_GROUP = 1_000, 1_000_000


@dataclass(frozen=True)
class Row:
    """One fetched row.

    `split` is the source's own ("" where it has none); `origin` is `path:line`,
    `owner/name@commit:file:row` or an address; `sha256` is that of the record as it came.
    """

    row: dict[str, Any]
    split: str
    origin: str
    sha256: str
    license: str
    evidence: str
    robots: str = ""
    etag: str = ""
    last_modified: str = ""


_SCHEMA = pa.schema([(name, pa.string()) for name in Row.__dataclass_fields__])


class RowWriter:
    """Writes `rows-00000.parquet`, ... into a folder that appears only when all is written."""

    def __init__(self, folder: Path, rows_per_shard: int = 50_000) -> None:
        self._folder, self._rows_per_shard = folder, rows_per_shard
        self.partial = folder.with_name(f".{folder.name}.partial")
        self._rows: list[dict[str, str]] = []
        self._characters = 0
        self._file: pq.ParquetWriter | None = None
        self._shards = self._in_shard = 0
        self.count = 0

    def __enter__(self) -> "RowWriter":
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        return self

    def write(self, fetched: Row) -> None:
        """Add one row. Rows keep the order in which they are written."""
        row = json.dumps(fetched.row, ensure_ascii=False)
        self._rows.append(
            {**vars(fetched), "row": row}
        )  # asdict would copy the row, deeply and slowly
        self._characters += len(row)
        self.count += 1
        full = len(self._rows) >= min(ROWS_PER_GROUP, self._rows_per_shard - self._in_shard)
        if full or self._characters >= CHARACTERS_PER_GROUP:
            self._flush()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write `manifest.json`: where the rows came from, and the sums that prove it."""
        write_json(self.partial / "manifest.json", manifest)

    def __exit__(self, error: type | None, *_: object) -> None:
        if error is None and (self._rows or not self._shards):
            self._flush()
        if self._file:
            self._file.close()
        if error is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self.partial.rename(self._folder)
        else:
            shutil.rmtree(self.partial, ignore_errors=True)

    def _flush(self) -> None:
        """Write the rows in memory as one row group: what preprocess gives to one process."""
        if self._file is None:
            path = self.partial / f"rows-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd")
            self._shards += 1
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
        self._in_shard += len(self._rows)
        self._rows, self._characters = [], 0
        if self._in_shard >= self._rows_per_shard:
            self._file.close()
            self._file, self._in_shard = None, 0


def read_rows(folder: Path) -> Iterator[Row]:
    """Every row of a fetched source, in order, a small group in memory at a time."""
    for path, group in row_groups(folder):
        yield from read_group(path, group)


def row_groups(folder: Path) -> list[tuple[Path, int]]:
    """The row groups of a fetched source, in order, as (file, number in the file)."""
    shards = sorted(folder.glob("rows-*.parquet"))
    if not shards:
        raise ValueError(f"{folder} holds no rows-*.parquet; run `dvc repro` to fetch it again")
    return [
        (path, group) for path in shards for group in range(pq.read_metadata(path).num_row_groups)
    ]


def read_group(path: Path, group: int) -> list[Row]:
    """The rows of one row group."""
    with pq.ParquetFile(path) as file:
        table = file.read_row_group(group, use_threads=False)
    return [Row(**{**row, "row": json.loads(row["row"])}) for row in table.to_pylist()]


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys: the same value gives the same bytes. Atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    partial.rename(path)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
