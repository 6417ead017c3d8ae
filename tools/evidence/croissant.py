"""Croissant metadata of the prepared data, built and validated by mlcroissant.

https://docs.mlcommons.org/croissant/docs/croissant-spec.html

Each file has its sha256 and an address that is relative to croissant.json, so
`mlcroissant.Dataset("croissant.json").records("documents")` reads it where it is. mlcroissant has
no reader for Arrow files: their columns are described, and read with pyarrow.
"""

import json
import os
from pathlib import Path
from typing import Any

import mlcroissant as mlc
from cyclonedx.spdx import fixup_id

from finetune.records import file_sha256
from tools.evidence.commit import Commit
from tools.record import Record

ARROW, LINES, PARQUET = (
    "application/vnd.apache.arrow.file",
    "application/jsonlines",
    ("application/x-parquet"),
)
FORMATS = {".arrow": ARROW, ".jsonl": LINES, ".json": "application/json", ".parquet": PARQUET}
# Column -> type, whether it is a list, what it is.
TOKENS = {
    "id": (mlc.DataType.TEXT, False, "names the example"),
    "source": (mlc.DataType.TEXT, False, "its source in params.yaml"),
    "input_ids": (mlc.DataType.INT32, True, "token ids"),
    "spans": (mlc.DataType.INT32, True, "[start, end) of the tokens that are learned or scored"),
}
TEXTS = {
    "id": (mlc.DataType.TEXT, False, "names the example"),
    "source": (mlc.DataType.TEXT, False, "its source in params.yaml"),
    "question": (mlc.DataType.TEXT, False, "as it is asked"),
    "reference": (mlc.DataType.TEXT, False, "the answer that it is scored by"),
}
DOCUMENTS = {
    "id": (mlc.DataType.TEXT, False, "names the document"),
    "source": (mlc.DataType.TEXT, False, "its source in params.yaml"),
    "split": (mlc.DataType.TEXT, False, "train, validation or test"),
    "origin": (mlc.DataType.TEXT, False, "file and line, or address"),
    "license": (mlc.DataType.TEXT, False, "its own licence, or that of its source"),
}
WHERE_FROM = Path("reports/data/documents.parquet")


def make_croissant(record: Record, commit: Commit, out: Path) -> dict[str, Any]:
    """The metadata as JSON-LD for croissant.json in the folder `out`.

    Raises ValueError where mlcroissant finds an error in it.
    """
    prepared = record.root / "data/prepared"
    files = sorted(path for path in prepared.rglob("*") if path.suffix in FORMATS)
    files.append(record.root / WHERE_FROM)
    about = {
        "conforms_to": ["http://mlcommons.org/croissant/1.1"],
        "name": f"{record.param('train', 'name')}-prepared",
        "description": _description(record),
        "license": _licenses(record),
        "date_published": commit.date,
        "version": "1.0.0",  # the format's; the content's is the hash of each file
        "url": commit.repository,
        "cite_as": f"commit {commit.sha}, data/prepared {record.outs['data/prepared']}",
    }
    try:
        made = mlc.Metadata(
            **about,
            distribution=[_file(record, path, out) for path in files],
            record_sets=[each for path in files if (each := _records(record, path))],
        ).to_json()
    except mlc.ValidationError as error:
        raise ValueError(f"mlcroissant finds an error in the data's metadata: {error}") from None
    return json.loads(json.dumps(made))


def _file(record: Record, path: Path, out: Path) -> mlc.FileObject:
    name = _name(record, path)
    return mlc.FileObject(
        id=name,
        name=name,
        content_url=os.path.relpath(path, out),
        encoding_formats=[FORMATS[path.suffix]],
        sha256=file_sha256(path),
    )


def _records(record: Record, path: Path) -> mlc.RecordSet | None:
    """The columns of a file; None of a file that has none."""
    columns = {".arrow": TOKENS, ".jsonl": TEXTS, ".parquet": DOCUMENTS}.get(path.suffix)
    if columns is None:
        return None
    name = _name(record, path)
    own = "documents" if path.suffix == ".parquet" else name.rpartition(".")[0]
    fields = []
    for column, (kind, is_list, what) in columns.items():
        fields.append(
            mlc.Field(
                id=f"{own}/{column}",
                name=f"{own}/{column}",
                description=what,
                data_types=[kind],
                source=mlc.Source(file_object=name, extract=mlc.Extract(column=column)),
                **({"is_array": True, "array_shape": "-1"} if is_list else {}),
            )
        )
    return mlc.RecordSet(id=own, name=own, fields=fields)


def _description(record: Record) -> str:
    counts = record.json("metrics/data.json")
    splits = ", ".join(f"{counts[s]['rows']} of {s}" for s in ("train", "validation", "test"))
    names = ", ".join(source.name for source in record.sources())
    return f"Tokenised examples of {names}: {splits}. `documents` says where each is from."


def _licenses(record: Record) -> list[str]:
    """The licences that documents have, by their address at SPDX where it lists them."""
    found = {name for splits in record.licenses().values() for used in splits.values()
             for name in used}  # fmt: skip
    ids = {name: fixup_id(name) for name in found}
    return sorted(f"https://spdx.org/licenses/{ids[n]}.html" if ids[n] else n for n in found)


def _name(record: Record, path: Path) -> str:
    """A file's path without the folders that all have in common."""
    return path.relative_to(record.root).as_posix().removeprefix("data/prepared/")
