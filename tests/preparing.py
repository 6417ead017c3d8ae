"""Run the preprocess stage on rows made up in a test, and read what it wrote."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.records import Row, RowWriter
from finetune.text.tokens import Example, TokenRows

LICENSE = {"license": "CC0-1.0", "evidence": "the test"}


@dataclass(frozen=True)
class Prepared:
    """What the stage wrote."""

    folder: Path
    metrics: dict[str, Any]
    rejects: list[dict[str, str]]
    base: Path

    def rows(self, split: str) -> list[Example]:
        """The examples of a split."""
        rows = TokenRows(self.folder / "data/prepared" / split)
        return [rows[n] for n in range(len(rows))]

    def texts(self, split: str) -> list[str]:
        """Each example as text, special tokens included."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.base)
        return [tokenizer.decode(row.input_ids.tolist()) for row in self.rows(split)]

    def ids(self, split: str) -> set[str]:
        """The ids of a split's documents."""
        return {row.id for row in self.rows(split)}

    def reasons(self) -> list[tuple[str, str]]:
        """Origin and reason of each reject."""
        return [(each["origin"], each["reason"]) for each in self.rejects]

    def bytes(self) -> dict[str, bytes]:
        """Every file that the stage wrote."""
        paths = [self.folder / "metrics/data.json"]
        for folder in ("data/prepared", "reports/data"):
            paths += [path for path in (self.folder / folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


def write_source(root: Path, name: str, rows: Iterable[Any], split: str = "") -> None:
    """Write rows as a fetched source; a row may be a pair of its split and its columns."""
    with RowWriter(root / "data/raw" / name) as writer:
        for number, row in enumerate(rows):
            own, columns = row if isinstance(row, tuple) else (split, row)
            writer.write(Row(columns, own, f"{name}:{number}", f"{number:064x}", **LICENSE))
        writer.write_manifest({"source": name, "rows": writer.count})


def declare(names: Iterable[str], own: Iterable[str] = ()) -> dict[str, Any]:
    """The `data` section for sources of these names, with splits of their own."""
    files = dict.fromkeys(own, "*")
    source = {"path": "data/sample", "files": files, **LICENSE}
    return {"files": {name: source for name in names}, "urls": {}, "hub": {}, "web": {}}


def run_stage(base: Path, workers: int = 1) -> Prepared:
    """Run the stage in this process and in the current folder."""
    from stages.preprocess.__main__ import main

    arguments = [str(base), "data/raw", "data/prepared", "--metrics", "metrics/data.json"]
    arguments += ["--report", "reports/data", "--workers", str(workers)]
    before, sys.argv = sys.argv, ["preprocess", *arguments]
    try:
        main()
    finally:
        sys.argv = before
    root = Path.cwd()
    rejects = (root / "reports/data/rejects.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = json.loads((root / "metrics/data.json").read_text(encoding="utf-8"))
    return Prepared(root, metrics, [json.loads(line) for line in rejects], base)


Prepare = Callable[..., Prepared]
