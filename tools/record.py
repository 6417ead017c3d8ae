"""What a run left, read so that every value can be traced: a file and a JSON pointer into it.

dvc.lock says what was run: commands, parameters, and the hash of each input and output. A file
that is not the one that dvc.lock names belongs to another run, and is refused.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from finetune.records import SPLITS

LOCK, PARAMS = "dvc.lock", "params.yaml"
METRICS = tuple(f"metrics/{name}.json" for name in ("data", "train", "baseline", "tuned"))
ADAPTER = "models/adapter"


@dataclass(frozen=True)
class Source:
    """A data source as it was fetched: its kind (files, urls, hub, web), and its parameters."""

    name: str
    kind: str
    parameters: dict[str, Any]

    @property
    def license(self) -> str:
        """The licence that params.yaml gives it; of a crawl those that were allowed."""
        own = self.parameters.get("license") or self.parameters.get("declared_license")
        return own or ", ".join(self.parameters["allowed_licenses"])

    @property
    def evidence(self) -> str:
        return self.parameters["evidence"] or "what each page says"

    @property
    def place(self) -> str:
        """Where it came from, in a line."""
        if self.kind == "hub":
            return f"{self.parameters['name']} @ {self.parameters['revision']}"
        if self.kind == "web":
            return f"crawl of {', '.join(self.parameters['start_urls'])}"
        return self.parameters.get("path") or ", ".join(self.parameters["files"].values())


@dataclass
class Record:
    """The files of one run under `root`; `cited` holds each value that was asked for."""

    root: Path = field(default_factory=Path)
    cited: dict[tuple[str, str], Any] = field(default_factory=dict)
    _read: dict[str, Any] = field(default_factory=dict)

    def json(self, path: str) -> Any:
        """The value of a JSON file, or of dvc.lock. Raises ValueError, with the remedy."""
        if path not in self._read:
            file = self.root / path
            if not file.exists():
                raise ValueError(f"{path} is missing: {_remedy(path)}")
            text = file.read_text(encoding="utf-8")
            self._read[path] = YAML(typ="safe").load(text) if path == LOCK else json.loads(text)
        return self._read[path]

    def value(self, path: str, pointer: str) -> Any:
        """What a JSON pointer (RFC 6901) finds in a file, cited; None where it finds nothing."""
        found = self.json(path)
        for key in pointer.removeprefix("/").split("/"):
            found = found.get(_plain(key)) if isinstance(found, dict) else None
        if found is not None:
            self.cited[path, pointer] = found
        return found

    def param(self, stage: str, key: str) -> Any:
        """A value of params.yaml as that stage ran with it: `lora/r`. None where it has none."""
        flat = key.replace(
            "/", "."
        )  # as dvc.lock has it where dvc.yaml names the key, not a section
        key = flat if flat in self.stages[stage]["params"][PARAMS] else key
        return self.value(LOCK, f"/stages/{stage}/params/{PARAMS}/{key}")

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage -> cmd, deps, params and outs. Raises ValueError where dvc.lock is missing."""
        return self.json(LOCK)["stages"]

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path -> DVC's hash of each output of the run."""
        each = (out for stage in self.stages.values() for out in stage.get("outs", []))
        return {out["path"]: out["md5"] for out in each}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Path -> DVC's hash of all that no stage made: code, configuration, files of data."""
        deps = [dep for stage in self.stages.values() for dep in stage.get("deps", [])]
        found = {dep["path"]: dep["md5"] for dep in deps if "md5" in dep}
        return {path: md5 for path, md5 in sorted(found.items()) if not self._is_made(path)}

    def sources(self) -> Iterator[Source]:
        """The sources that preprocess read, by name."""
        data = self.stages["preprocess"]["params"][PARAMS]["data"]
        pairs = sorted((name, kind) for kind in data for name in data[kind])
        return (Source(name, kind, data[kind][name]) for name, kind in pairs)

    def licenses(self) -> dict[str, dict[str, dict[str, int]]]:
        """Source -> split -> licence -> documents: each document's own, where it says one."""
        import pyarrow.parquet as pq

        path = "reports/data/documents.parquet"
        if not (self.root / path).exists():
            raise ValueError(f"{path} is missing: {_remedy(path)}")
        keys = ["source", "split", "license"]
        table = pq.read_table(self.root / path, columns=keys)
        counts = table.group_by(keys).aggregate([([], "count_all")]).to_pylist()
        found: dict[str, dict[str, dict[str, int]]] = {}
        for row in sorted(counts, key=lambda row: (SPLITS.index(row["split"]), row["license"])):
            of = found.setdefault(row["source"], {}).setdefault(row["split"], {})
            of[row["license"]] = row["count_all"]
        return found

    def check(self, *paths: str) -> None:
        """Raise ValueError for the first output that is missing, or not the one of dvc.lock."""
        for path in paths:
            if path not in self.outs:
                raise ValueError(f"{LOCK} has no {path}: run `dvc repro`")
            if not (self.root / path).exists():
                raise ValueError(f"{path} is missing: {_remedy(path)}")
            self.check_same(path, self.root / path)

    def check_same(self, path: str, found: Path) -> None:
        """Raise ValueError unless `found` is what dvc.lock says that `path` is."""
        if (actual := self.hash(found)) != self.outs[path]:
            raise ValueError(
                f"{found} is not of the run in {LOCK} (md5 {actual}, there {self.outs[path]}): "
                f"{_remedy(path)}"
            )

    def hash(self, path: Path) -> str:
        """DVC's hash of a file (md5) or a folder (md5 of its listing, and .dir), as it is now.

        DVC's own record of what it hashed before is not asked: a change might hide behind it.
        """
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.db import HashFileDB
        from dvc_objects.fs import LocalFileSystem, MemoryFileSystem

        nowhere = HashFileDB(MemoryFileSystem(), "none")  # a dry run stores nothing
        where, ignore = str(path.absolute()), self._repo.dvcignore
        made = build(nowhere, where, LocalFileSystem(), "md5", dry_run=True, ignore=ignore)
        return made[2].hash_info.value

    @cached_property
    def _repo(self) -> Any:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            return Repo(str(self.root))
        except NotDvcRepoError:
            raise ValueError(
                f"{self.root.absolute()} is no DVC repository: run it in one"
            ) from None

    def _is_made(self, path: str) -> bool:
        """Whether it is an output, or inside of one, or a folder of nothing else."""
        for out in self.outs:
            if path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/"):
                return True
        return False


def escape(key: str) -> str:
    """A key as it stands in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _plain(key: str) -> str:
    """A key of a pointer without its escapes."""
    return key.replace("~1", "/").replace("~0", "~")


def _remedy(path: str) -> str:
    if path.startswith("metrics/") or path == LOCK:
        return "run `dvc repro`, or `git checkout metrics dvc.lock` for those of the last commit"
    return f"run `dvc repro`, or `dvc pull {path}`"
