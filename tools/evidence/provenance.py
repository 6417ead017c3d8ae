"""What was made from what: an in-toto statement with SLSA's provenance (v1) as its predicate.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://slsa.dev/spec/v1.0/provenance

Products are the outputs in dvc.lock, materials all that no stage made. Both carry the hash that
DVC knows them by: `md5` of a file, and of a folder `dvcDirMd5`, the md5 of its sorted listing as
JSON. What is delivered, each file of the adapter, and the base model carry a `sha256` too.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import STATEMENT_TYPE_URI, Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from finetune.records import file_sha256
from tools.evidence.commit import Commit
from tools.record import ADAPTER, PARAMS, Record

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://dvc.org/doc/command-reference/repro"
# Nobody but the one who ran it vouches for it: no more than SLSA Build L1.
BUILDER = "urn:dvc:repro:self-attested"
DIRECTORY = ".dir"  # at the end of DVC's hash of a folder


def make_statement(record: Record, commit: Commit) -> dict[str, Any]:
    """The statement as JSON has it. Raises ValueError where a file is not the one of the run."""
    statement = {
        "_type": STATEMENT_TYPE_URI,
        "subject": list(_products(record)),
        "predicateType": PREDICATE,
        "predicate": _predicate(record, commit),
    }
    check(statement)
    return statement


def check(statement: dict[str, Any]) -> None:
    """Raise ValueError unless it is an in-toto statement with SLSA's provenance, and no more."""
    try:
        message = ParseDict(statement, StatementMessage())
        Statement.copy_from_pb(message).validate()
        ParseDict(statement["predicate"], Provenance())
    except (ParseError, ValueError) as error:
        raise ValueError(f"no in-toto statement of SLSA provenance: {error}") from None
    if message.predicate_type != PREDICATE:
        raise ValueError(f"a statement of {message.predicate_type}, not of {PREDICATE}")


def read_statement(path: Path) -> dict[str, Any]:
    """The statement in a file. Raises ValueError where it is missing or another."""
    if not path.exists():
        raise ValueError(f"{path} is missing: run `python -m tools.evidence`")
    try:
        statement = json.loads(path.read_text(encoding="utf-8"))
        check(statement)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return statement


def verify(record: Record, statement: dict[str, Any]) -> tuple[int, list[str]]:
    """How many products are here as they were, and those that are not on this machine.

    Raises ValueError, naming all of them, where products differ.
    """
    same, missing, differ = 0, [], []
    for subject in statement["subject"]:
        path = record.root / subject["name"]
        if not path.exists():
            missing.append(subject["name"])
        elif any(_digest(record, path, kind) != value for kind, value in subject["digest"].items()):
            differ.append(subject["name"])
        else:
            same += 1
    if differ:
        raise ValueError(f"not what the run made: {', '.join(differ)}; get it back by `dvc pull`")
    return same, missing


def _digest(record: Record, path: Path, kind: str) -> str:
    return file_sha256(path) if kind == "sha256" else record.hash(path).removesuffix(DIRECTORY)


def _products(record: Record) -> Iterator[dict[str, Any]]:
    """The outputs by path; the adapter's files one by one."""
    here = [path for path in record.outs if (record.root / path).exists()]
    record.check(*{*here, ADAPTER})
    for path, md5 in sorted(record.outs.items()):
        yield {"name": path, "digest": _dvc(md5)}
    for file in sorted((record.root / ADAPTER).rglob("*")):
        if file.is_file():
            name = file.relative_to(record.root).as_posix()
            yield {"name": name, "digest": {"sha256": file_sha256(file)}}


def _predicate(record: Record, commit: Commit) -> dict[str, Any]:
    """SLSA's provenance."""
    dirty = bool(commit.changed)
    state = {"dirty": dirty, **({"changed": commit.changed} if dirty else {})}
    uri = f"git+{commit.repository}" if commit.repository else "git+file:."
    source = {"uri": uri, "digest": {"gitCommit": commit.sha}, "annotations": state}
    parameters = {
        name: stage["params"][PARAMS]
        for name, stage in record.stages.items()
        if PARAMS in stage.get("params", {})
    }
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"workflow": "dvc.yaml", "params": parameters},
            "internalParameters": {
                "commands": {name: stage["cmd"] for name, stage in record.stages.items()}
            },
            "resolvedDependencies": [source, *_materials(record)],
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": _versions(record)},
            "metadata": {"invocationId": record.json("metrics/train.json")["fingerprint"]},
        },
    }


def _materials(record: Record) -> Iterator[dict[str, Any]]:
    """What no stage made: code, settings, files of data, base model, what was downloaded."""
    for path, md5 in record.inputs.items():
        where = record.root / path
        if not where.exists():
            yield {"name": path, "digest": _dvc(md5), "annotations": {"here": False}}
            continue
        if record.hash(where) != md5:
            raise ValueError(
                f"{path} is not what the run in dvc.lock used: check out the commit of the run, or "
                "run `dvc repro` (`dvc status` lists all that differs)"
            )
        yield {"name": path, "digest": _dvc(md5)}
    manifest = record.json("models/base/manifest.json")
    for name, file in manifest["files"].items():
        where = f"base model {manifest['model']['name']}: {name}"
        yield {"name": where, "digest": {"sha256": file["sha256"]}}
    for source in record.sources():
        for file in record.json(f"data/raw/{source.name}/manifest.json").get("files", []):
            if "sha256" in file:
                where = f"data source {source.name}: {file['path']}"
                yield {"name": where, "digest": {"sha256": file["sha256"]}}


def _dvc(md5: str) -> dict[str, str]:
    if md5.endswith(DIRECTORY):
        return {"dvcDirMd5": md5.removesuffix(DIRECTORY)}
    return {"md5": md5}


def _versions(record: Record) -> dict[str, str]:
    """Of the libraries that trained, where metrics/cost.json knows them; of DVC in any case."""
    cost = record.json("metrics/cost.json")
    return {"dvc": version("dvc"), **cost.get("versions", {})}
