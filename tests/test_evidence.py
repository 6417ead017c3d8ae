"""The card and the evidence of a run: every figure traceable, every file valid, tampering found."""

import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mlcroissant
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from dvc.repo import Repo
from huggingface_hub import ModelCard
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from finetune.checkpoints import seal
from finetune.params import load
from stages.fetch import files, model
from stages.preprocess import __main__ as preprocess
from stages.train.card import write_card as write_small_card
from tests.repository import ROOT, Repository, write_tiny_params
from tests.test_card import METRICS
from tools.card.making import make_card, write_card
from tools.evidence import __main__ as evidence
from tools.evidence import bom, provenance, training_content
from tools.evidence.commit import public_address, read_commit
from tools.record import Record, Source

NEEDED = ("dvc.yaml", "params.yaml", ".dvc", "stages", "finetune", "steps", "presets")
NEEDED += ("requirements.in", ".dvcignore", ".gitignore", "data/sample", "models/local")
SECRET = "hf_marked0123456789"


def make_run(folder: Path, weights: Path) -> Repository:
    """A repository whose data was really fetched and prepared, with the metrics of this one.

    The adapter has random weights; what only its hash is of interest of, has a line of text.
    """
    kept = shutil.ignore_patterns("__pycache__", "tmp", "cache")
    for name in NEEDED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=kept)
        else:
            shutil.copy(ROOT / name, target)
    write_tiny_params(folder, weights)
    law = folder / "data/sample/law.jsonl"
    lines = law.read_text(encoding="utf-8").splitlines(keepends=True)
    law.write_text("".join(lines[:60]), encoding="utf-8")
    run_stage(model.main, "models/base")
    run_stage(files.main, "law", "data/raw/law")
    words = ("models/base", "data/raw", "data/prepared", "--workers", "1")
    run_stage(preprocess.main, *words, "--metrics", "metrics/data.json", "--report", "reports/data")
    for name in ("train", "baseline", "tuned", "cost"):
        shutil.copy(ROOT / f"metrics/{name}.json", folder / "metrics")
    write_adapter(folder / "models/adapter")
    for name in ("models/checkpoints/best.json", "reports/train/loss.tsv", "reports/report.html",
                 "reports/evaluate/samples.md", "data/predictions/baseline.jsonl",
                 "data/predictions/tuned.jsonl"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n", encoding="utf-8")
    made = Repository(folder, Path(sys.executable).parent)
    made.run("git", "init", "-q", "-b", "main")
    made.run("git", "remote", "add", "origin", f"https://me:{SECRET}@example.org/me/law.git")
    Repo(str(folder)).commit(force=True)  # writes dvc.lock for what is there
    made.commit("run")
    return made


def run_stage(main: Callable[[], None], *words: str) -> None:
    before, sys.argv = sys.argv, ["stage", *words]
    try:
        main()
    finally:
        sys.argv = before


def write_adapter(folder: Path) -> None:
    partial = folder.with_name(".adapter.partial")
    partial.mkdir(parents=True)
    save_file({"lora_A": np.ones((2, 2), np.float32)}, partial / "adapter_model.safetensors")
    manifest = json.loads(Path("models/base/manifest.json").read_text(encoding="utf-8"))
    run = {"metrics": METRICS, "continued": None}
    text = write_small_card(load(Path("params.yaml")), manifest, run)
    (partial / "README.md").write_text(text, encoding="utf-8")
    seal(partial, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_weights) -> Repository:
    """The run, with its evidence; the process in its folder while it is made."""
    folder, before = tmp_path_factory.mktemp("record") / "run", Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    os.environ.pop("DVC_ROOT", None)
    os.environ["HF_TOKEN"] = SECRET
    try:
        run = make_run(folder, tiny_weights)
        evidence.write(Record(), evidence.OUT)
        return run
    finally:
        del os.environ["HF_TOKEN"]
        os.chdir(before)


@pytest.fixture
def run(made, monkeypatch) -> Path:
    """The run's folder, and the process in it."""
    monkeypatch.chdir(made.folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return made.folder


@pytest.fixture
def changed(run) -> Callable[[str, Callable[[str], str]], None]:
    """A function that changes the text of a file, which is as before when the test has ended."""
    kept: dict[Path, bytes] = {}

    def change(name: str, how: Callable[[str], str]) -> None:
        kept.setdefault(run / name, (run / name).read_bytes())
        (run / name).write_text(how((run / name).read_text(encoding="utf-8")), encoding="utf-8")

    yield change
    for path, data in kept.items():
        path.write_bytes(data)


def read(name: str) -> dict:
    return json.loads((evidence.OUT / name).read_text(encoding="utf-8"))


def read_any(name: str) -> dict:
    text = Path(name).read_text(encoding="utf-8")
    return YAML(typ="safe").load(text) if name == "dvc.lock" else json.loads(text)


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


def test_every_figure_of_the_card_is_where_the_card_says(run):
    body, _, origins = make_card(Record()).text.partition("## Where each figure is from")
    rows = [row for row in table_rows(origins) if len(row) == 3]
    files = {name: read_any(name) for name in {row[0] for row in rows}}
    for name, pointer, shown in rows:
        value = files[name]
        for key in pointer.strip("/").split("/"):
            value = value[key]
        assert str(value) == (shown.replace(",", "") if isinstance(value, int) else shown)
    figures = re.findall(r"(?<![\w.-])-?\d[\d,]*\.\d+(?![\w.])", body)
    assert len(figures) > 40 and set(figures) <= {row[2] for row in rows}


def test_the_hub_reads_the_cards_results_and_the_same_run_gives_the_same_card(run):
    card = make_card(Record())
    tuned = json.loads(Path("metrics/tuned.json").read_text(encoding="utf-8"))
    results = {
        each.metric_name: each.metric_value for each in ModelCard(str(card)).data.eval_results
    }
    assert results["loss"] == tuned["loss"] and results["accuracy"] == tuned["accuracy"]
    assert str(make_card(Record())) == str(card)
    merged = make_card(Record(), "merged").data
    assert (card.data.library_name, merged.library_name) == ("peft", "transformers")


def test_what_the_card_must_say_is_in_it(run):
    text = make_card(Record()).text
    tuned = json.loads(Path("metrics/tuned.json").read_text(encoding="utf-8"))
    diff = tuned["diff"]
    assert f"{diff['loss']} [{diff['loss_low']}, {diff['loss_high']}]" in text
    assert "What was forgotten" in text and "| law | data/sample/law.jsonl | CC0-1.0 |" in text
    assert "| hardware |" in text and "transformers " in text and "## Limits" in text


def test_cost_that_is_of_another_run_is_not_told(run, changed):
    changed("metrics/cost.json", lambda text: text.replace('"fingerprint": "', '"fingerprint": "0'))
    assert "metrics/cost.json is of another run" in make_card(Record()).text


@pytest.mark.parametrize("name", ["metrics/tuned.json", "reports/data/documents.parquet"])
def test_a_missing_file_is_one_line_with_the_remedy(run, name):
    kept = run / "kept"
    shutil.move(run / name, kept)
    try:
        with pytest.raises(
            ValueError, match=f"{name} is missing: run `dvc repro`, or `.*`"
        ) as error:
            make_card(Record())
        assert "\n" not in str(error.value)
    finally:
        shutil.move(kept, run / name)


def test_metrics_of_another_run_are_refused(run, changed):
    changed("metrics/tuned.json", lambda text: text.replace('"rows": ', '"rows": 1'))
    with pytest.raises(ValueError, match=r"metrics/tuned.json is not of the run in dvc.lock"):
        make_card(Record())


def test_an_exported_folder_gets_the_card_of_its_own_adapter_only(run, tmp_path):
    gap = {"loss": {"value": 0.0007, "low": -0.0003, "high": 0.0016}}
    scored = {"kind": "merged", "rows": 20, "gap": gap, "same_answers": 0.9}
    scored |= {"export": {"loss": 3.4}, "adapter": {"loss": 3.3993}}
    write_card(tmp_path, "merged", scored=scored)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "3.4 where the adapter has 3.3993, a difference of 0.0007 [-0.0003, 0.0016]" in text
    shutil.copytree("models/adapter", tmp_path / "other")
    (tmp_path / "other/settings.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is not of the run in dvc.lock"):
        write_card(tmp_path, adapter=tmp_path / "other")


def test_the_statement_names_commit_commands_materials_and_products(run, made):
    statement = provenance.read_statement(evidence.OUT / evidence.STATEMENT)
    build = statement["predicate"]["buildDefinition"]
    source, *materials = build["resolvedDependencies"]
    assert source["digest"]["gitCommit"] == made.run("git", "rev-parse", "HEAD").strip()
    assert source["annotations"] == {"dirty": False}
    assert source["uri"] == "git+https://example.org/me/law.git"
    lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
    assert build["internalParameters"]["commands"] == {n: s["cmd"] for n, s in lock.items()}
    names = {each["name"]: each["digest"] for each in materials}
    assert names["stages/train"].keys() == {"dvcDirMd5"} and "md5" in names["finetune/errors.py"]
    assert names["base model tiny: model.safetensors"].keys() == {"sha256"}
    products = {each["name"]: each["digest"] for each in statement["subject"]}
    assert set(made.outs()) < set(products) and not set(products) & set(names)
    assert "sha256" in products["models/adapter/adapter_model.safetensors"]


def test_changes_that_are_not_committed_are_said(run):
    (run / "notes.txt").write_text("", encoding="utf-8")
    try:
        statement = provenance.make_statement(Record(), read_commit(run))
    finally:
        (run / "notes.txt").unlink()
    [source, *_] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["annotations"] == {"dirty": True, "changed": ["notes.txt"]}


def test_code_that_is_not_that_of_the_run_is_refused(run, changed):
    changed("finetune/errors.py", lambda text: text + "# edited\n")
    with pytest.raises(ValueError, match="finetune/errors.py is not what the run in dvc.lock used"):
        evidence.write(Record(), evidence.OUT)
    assert (evidence.OUT / evidence.STATEMENT).exists()  # that of before stays


def test_the_bill_of_materials_is_valid_and_has_models_data_and_licences(run):
    text = (evidence.OUT / evidence.BOM).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    made = json.loads(text)
    adapter, parts = made["metadata"]["component"], {c["bom-ref"]: c for c in made["components"]}
    assert parts["base"]["type"] == adapter["type"] == "machine-learning-model"
    assert parts["data:law"]["licenses"] == [{"license": {"id": "CC0-1.0"}}]
    assert adapter["modelCard"]["modelParameters"]["datasets"] == [{"ref": "data:law"}]
    measured = adapter["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    tuned = json.loads(Path("metrics/tuned.json").read_text(encoding="utf-8"))
    assert str(tuned["loss"]) in {each["value"] for each in measured}
    with pytest.raises(ValueError, match="not valid CycloneDX"):
        bom.check(made | {"components": [{"type": "nothing"}]})


@pytest.mark.parametrize(
    ("kind", "parameters", "licenses", "purl"),
    [
        ("web", {"allowed_licenses": ["CC-BY-4.0", "CC0-1.0 OR MIT"], "declared_license": None,
                 "evidence": None, "start_urls": ["https://a.example/"]},
         [{"license": {"id": "CC-BY-4.0"}}, {"license": {"name": "CC0-1.0 OR MIT"}}], None),
        ("hub", {"name": "a/b", "revision": "c" * 40, "license": "our own", "evidence": "x"},
         [{"license": {"name": "our own"}}], f"pkg:huggingface/datasets/a/b@{'c' * 40}"),
    ],
)  # fmt: skip
def test_any_source_and_licence_gives_a_valid_bill(
    run, monkeypatch, kind, parameters, licenses, purl
):
    monkeypatch.setattr(Record, "sources", lambda self: iter([Source("law", kind, parameters)]))
    made = bom.make_bom(Record(), read_commit(run))  # it is validated there
    [data] = [each for each in made["components"] if each["type"] == "data"]
    assert data["licenses"] == licenses and data.get("purl") == purl


def test_mlcroissant_reads_the_prepared_data_by_its_metadata(run):
    data = mlcroissant.Dataset(str(evidence.OUT / evidence.CROISSANT))
    assert not list(data.metadata.issues.errors) and not list(data.metadata.issues.warnings)
    [document] = itertools.islice(data.records("documents"), 1)
    assert document["documents/license"] == b"CC0-1.0"
    [text] = itertools.islice(data.records("test/texts"), 1)
    first = Path("data/prepared/test/texts.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert text["test/texts/question"].decode() == json.loads(first)["question"]


def test_the_inputs_for_the_public_summary_say_what_they_are(run):
    made = read(evidence.CONTENT)
    assert "This is not that summary" in made["what this is"]
    sources = made["2 List of data sources"][
        "to be placed by the provider under 2.2, 2.4, 2.5 or 2.6"
    ]
    assert sources["law"]["licence"] == "CC0-1.0" and sources["law"]["rows fetched"] == 60
    assert made["1 General information"]["1.1 Provider"] is None


def test_a_crawl_is_described_by_its_period_its_domains_and_what_it_left_alone(tmp_path):
    folder = tmp_path / "data/raw/recipes"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "data/sample/food/recipes.warc.gz", folder / "capture.warc.gz")
    pages = [{"origin": f"https://{host}.example/{n}"} for n in range(3) for host in ("a", "b")]
    manifest = {"documents": pages[:-1], "counts": {"kept": 5, "disallowed by robots.txt": 2}}
    source = Source("recipes", "web", {"contact": "me@example.org"})
    found = training_content.describe_crawl(Record(tmp_path), source, manifest)
    first, last = found["period"]
    assert re.match(r"\d{4}-\d\d-\d\dT", first) and first <= last
    assert found["domains"] == 2 and found["domains with most pages (10%)"] == {"a.example": 3}
    assert found["addresses left alone, by reason"] == {"disallowed by robots.txt": 2}


def test_the_same_run_gives_the_same_evidence_also_beside_that_of_before(run):
    out, found = Path("kept/evidence"), []  # not ignored by git
    try:
        for _ in range(2):
            evidence.write(Record(), out)
            found.append({file.name: file.read_bytes() for file in out.iterdir()})
    finally:
        shutil.rmtree("kept")
    assert found[0] == found[1]
    statement = (evidence.OUT / evidence.STATEMENT).read_bytes()
    assert found[1][evidence.STATEMENT] == statement


@pytest.mark.parametrize(
    "name", ["models/adapter/README.md", "data/predictions/tuned.jsonl", "metrics/tuned.json"]
)
def test_a_product_that_was_tampered_with_is_found(run, changed, name):
    evidence.check(Record(), evidence.OUT, Path())
    changed(name, lambda text: text.replace("a", "b", 1))
    with pytest.raises(ValueError, match=f"not what the run made: .*{name}"):
        evidence.check(Record(), evidence.OUT, Path())


def test_a_signature_holds_until_the_evidence_is_changed(run, tmp_path):
    private, public = write_keys(tmp_path)
    evidence.write(Record(), Path("signed"), private)
    try:
        evidence.check(Record(), Path("signed"), public)
        _, stranger = write_keys(tmp_path / "other")
        with pytest.raises(ValueError, match="models/adapter is not what signed/adapter.sig"):
            evidence.check(Record(), Path("signed"), stranger)
        with Path("signed", evidence.CARD).open("a", encoding="utf-8") as card:
            card.write("better than all\n")
        with pytest.raises(ValueError, match="signed is not what signed/evidence.sig"):
            evidence.check(Record(), Path("signed"), public)
    finally:
        shutil.rmtree("signed")


def write_keys(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / "private.pem", folder / "public.pem"
    own = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *own))
    shown = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, shown))
    return private, public


def test_no_secret_is_in_the_evidence(run):
    for file in evidence.OUT.iterdir():
        assert SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (f"https://me:{SECRET}@example.org:8443/a/b.git?x={SECRET}", "https://example.org:8443/a/b.git"),
        ("git@example.org:a/b.git", "ssh://example.org/a/b.git"),
        ("/home/me/project", None),
        ("../project", None),
        ("file:///home/me/project", None),
    ],
)  # fmt: skip
def test_an_address_is_told_without_user_password_and_folders(address, shown):
    assert public_address(address) == shown


@pytest.mark.slow
@pytest.mark.extended
def test_a_whole_run_has_its_evidence_and_the_export_its_card(clean):
    clean.run(sys.executable, "-m", "tools.evidence", HF_TOKEN=SECRET)
    said = clean.run(sys.executable, "-m", "tools.evidence", "--verify")
    assert "products are what" in said and "not checked" not in said
    clean.run(sys.executable, "-m", "tools.export", "adapter", "--rows", "0")
    card = (clean.folder / "models/export/adapter/README.md").read_text(encoding="utf-8")
    assert "## Where each figure is from" in card


@pytest.mark.slow
@pytest.mark.extended
def test_a_tag_releases_the_adapter_to_whoever_reads_the_repository(clean, tmp_path):
    clean.run("gto", "register", "adapter", "--version", "v1.0.0")
    clean.run("gto", "assign", "adapter", "--version", "v1.0.0", "--stage", "production")
    wanted = (clean.folder / "models/adapter/checksums.json").read_bytes()
    other = Repository(tmp_path, clean.programs)
    get = ("dvc", "artifacts", "get", str(clean.folder), "adapter")
    other.run(*get, "--rev", "v1.0.0", "-o", "by-version")
    other.run(*get, "--stage", "production", "-o", "by-stage")
    tag = "adapter@v1.0.0"
    other.run("dvc", "get", str(clean.folder), "models/adapter", "--rev", tag, "-o", "by-path")
    for name in ("by-version", "by-stage", "by-path"):
        assert (tmp_path / name / "checksums.json").read_bytes() == wanted
