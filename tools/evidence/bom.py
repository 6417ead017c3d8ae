"""A bill of materials: models, data sets, libraries, with licences and hashes, as CycloneDX 1.6.

The library knows components, licences and dependencies. What it does not have yet, `modelCard` and
`data` of a component, is added to its JSON, and the whole is validated by its strict validator
against CycloneDX's own schema.
"""

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from finetune.records import file_sha256
from stages.evaluate.report import CHARTED, charted
from tools.evidence.commit import Commit
from tools.record import ADAPTER, Record, Source

TUNED = "metrics/tuned.json"
BASE = "models/base/manifest.json"


def make_bom(record: Record, commit: Commit) -> dict[str, Any]:
    """The bill of materials as JSON has it. Raises ValueError where the schema does not hold."""
    adapter, base = _adapter(record), _base(record)
    data = [_data_set(record, source) for source in record.sources()]
    libraries = list(_libraries(record))
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{commit.sha}:{record.outs[ADAPTER]}"),
        metadata=BomMetaData(component=adapter, timestamp=commit.date),
        components=[base, *data, *libraries],
    )
    bom.register_dependency(adapter, [base, *data, *libraries])
    made = json.loads(JsonV1Dot6(bom).output_as_string())
    made["metadata"]["component"]["modelCard"] = _model_card(record)
    for component in made["components"]:
        if component["type"] == ComponentType.DATA.value:
            component["data"] = [_about_data(record, component["name"])]
    check(made)
    return made


def check(bom: dict[str, Any]) -> None:
    """Raise ValueError unless `bom` is valid CycloneDX 1.6."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom))
    if error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"the bill of materials is not valid CycloneDX 1.6: {first}")


def _adapter(record: Record) -> Component:
    weights = record.root / ADAPTER / "adapter_model.safetensors"
    model = record.json(BASE)["model"]
    return Component(
        name=record.param("train", "name"),
        bom_ref="adapter",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=record.outs[ADAPTER].removesuffix(".dir"),
        licenses=_licenses([model["license"]]),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file_sha256(weights))],
        description=f"A LoRA adapter for {model['name']}; its version is DVC's hash of its folder.",
    )


def _base(record: Record) -> Component:
    """The base model: its weights' hash, or those of all its parts as properties."""
    manifest = record.json(BASE)
    model, files = manifest["model"], manifest["files"]
    weights = {name: each for name, each in files.items() if name.endswith(".safetensors")}
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=each["sha256"]) for each in
              weights.values()] if len(weights) == 1 else []  # fmt: skip
    listed = [Property(name=f"sha256:{name}", value=each["sha256"]) for name, each in files.items()]
    return Component(
        name=model["name"],
        bom_ref="base",
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=model["revision"],
        purl=_purl(model["source"], model["name"], model["revision"]),
        licenses=_licenses([model["license"]]),
        hashes=hashes,
        properties=listed,
    )


def _data_set(record: Record, source: Source) -> Component:
    hub = source.kind == "hub"
    return Component(
        name=source.name,
        bom_ref=f"data:{source.name}",
        type=ComponentType.DATA,
        version=record.outs[f"data/raw/{source.name}"].removesuffix(".dir"),
        purl=_purl("hub", source.parameters["name"], source.parameters["revision"], "datasets/")
        if hub
        else None,
        licenses=_licenses(source.parameters.get("allowed_licenses") or [source.license]),
        description=f"{source.place}; its version is DVC's hash of what was fetched.",
    )


def _licenses(names: Sequence[str]) -> list[License]:
    """One licence may be an expression of SPDX; of several, each stands by its id or its name."""
    factory = LicenseFactory()
    made = [factory.make_from_string(name) for name in names]
    if len(made) == 1:
        return made
    pairs = zip(names, made, strict=True)
    return [
        factory.make_with_name(name) if isinstance(each, LicenseExpression) else each
        for name, each in pairs
    ]


def _libraries(record: Record) -> Iterator[Component]:
    """What trained it, where metrics/cost.json knows it; else what was to be installed."""
    versions = record.json("metrics/cost.json").get("versions") or _pins(record.root)
    for name, version in sorted(versions.items()):
        yield Component(
            name=name,
            bom_ref=f"library:{name}",
            type=ComponentType.PLATFORM if name == "python" else ComponentType.LIBRARY,
            version=version,
            purl=None if name == "python" else PackageURL("pypi", name=name, version=version),
        )


def _pins(root: Path) -> dict[str, str]:
    text = (root / "requirements.in").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([\w.+!]+)", text, re.MULTILINE))


def _model_card(record: Record) -> dict[str, Any]:
    """The schema's modelCard: what it is, what it was trained on, how it scored."""
    config = json.loads((record.root / "models/base/config.json").read_text(encoding="utf-8"))
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text-generation",
            "architectureFamily": config["model_type"],
            "modelArchitecture": ", ".join(config.get("architectures") or [config["model_type"]]),
            "datasets": [{"ref": f"data:{source.name}"} for source in record.sources()],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_performance(record))},
        "considerations": {
            "technicalLimitations": [
                "Measured on held-out rows of its own data sources only.",
                "Not tested for safety, bias or truth.",
            ]
        },
        "properties": [
            {"name": f"lora:{key}", "value": json.dumps(value)}
            for key, value in sorted(record.param("train", "lora").items())
        ],
    }


def _performance(record: Record) -> Iterator[dict[str, Any]]:
    """Base and tuned with their intervals, and what was forgotten."""
    for model, file in (("base", "metrics/baseline.json"), ("tuned", TUNED)):
        values = record.json(file)
        for metric in charted(values["interval"]):
            bounds = values["interval"][metric]
            yield _metric(CHARTED.get(metric, metric), values[metric], f"test, {model}", **bounds)
    if lost := record.json(TUNED).get("forgotten"):
        yield _metric("loss, forgotten", lost["loss"], "general text", lost["low"], lost["high"])


def _metric(
    name: str, value: float, part: str, low: float | None, high: float | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": name, "value": str(value), "slice": part}
    if low is not None:
        found["confidenceInterval"] = {"lowerBound": str(low), "upperBound": str(high)}
    return found


def _about_data(record: Record, name: str) -> dict[str, Any]:
    """The schema's data of a component: what it is, where it comes from, its share."""
    source = next(each for each in record.sources() if each.name == name)
    share = record.json("metrics/data.json")["shares"][name]["achieved"]
    facts = {"share of training": share, "evidence of its licence": source.evidence}
    facts |= {"kind": source.kind, "place": source.place}
    return {
        "type": "dataset",
        "name": name,
        "contents": {"properties": [{"name": k, "value": str(v)} for k, v in facts.items()]},
    }


def _purl(source: str, name: str, revision: str | None, prefix: str = "") -> PackageURL | None:
    """The package URL of what is published; None of a folder."""
    if source == "pypi":
        return PackageURL("pypi", name=name, version=revision)
    if source == "hub":
        owner, _, short = f"{prefix}{name}".rpartition("/")
        return PackageURL("huggingface", owner or None, short, revision)
    return None
