"""Experiments: run, queue, compare and draw them, as README.md and docs/experiments.md say."""

import csv
import json
import re
import shlex
import shutil

import pytest

from tests.repository import ROOT, Repository, stages, wait_for

pytestmark = pytest.mark.slow


def test_a_variant_trains_anew_and_is_compared(clean):
    output = clean.run("dvc", "exp", "run", "-n", "r16", "-S", "lora.r=16")
    assert stages(output) == {"train", "cost", "evaluate", "report", "gate"}
    changed = read_json(clean.run("dvc", "metrics", "diff", "--json"))
    trainable = changed["metrics/train.json"]["trainable"]
    assert trainable["new"] == 2 * trainable["old"]
    assert changed["metrics/tuned.json"]["loss"]["diff"]
    assert "metrics/baseline.json" not in changed and "metrics/data.json" not in changed
    values = read_json(clean.run("dvc", "params", "diff", "--json"))
    assert values == {"params.yaml": {"lora.r": {"old": 8, "new": 16, "diff": 8}}}
    clean.run("git", "reset", "-q", "--hard", "main")
    between = read_json(clean.run("dvc", "metrics", "diff", "main", "r16", "--json"))
    assert between["metrics/train.json"]["trainable"] == trainable
    for command in (("plots", "show"), ("plots", "diff", "main", "r16")):
        clean.run("dvc", *command)
        page = (clean.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
        assert "Base and tuned on the test rows" in page
        assert "<script src" not in page
    assert "r16" in page


@pytest.mark.extended
def test_variants_are_queued_and_run_aside(clean):
    clean.run("dvc", "exp", "run", "--queue", "-S", "lora.r=2,4")
    clean.run("dvc", "queue", "start")
    clean.run("dvc", "exp", "run", "--temp", "-n", "aside", "-S", "train.learning_rate=0.02")
    wait_for(lambda: not waiting(clean), seconds=300)
    assert clean.run("git", "status", "--short") == ""
    rows = list(csv.DictReader(clean.run("dvc", "exp", "show", "--csv").splitlines()))
    found = {(row["lora.r"], row["train.learning_rate"]): row for row in rows}
    committed = next(row for row in rows if row["rev"] == "main")
    default = committed["train.learning_rate"]
    for variant in (("2", default), ("4", default), (committed["lora.r"], "0.02")):
        assert found[variant]["eval_loss"]
    options = re.search(
        r"^ {4}dvc exp show (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M
    )[1]
    table = clean.run("dvc", "exp", "show", "--no-pager", *shlex.split(options), COLUMNS="80")
    assert "lora.r" in table and "…" not in table
    losses = {row["eval_loss"] for row in found.values()}
    assert len(losses) == len(found)


@pytest.mark.extended
def test_costs_are_those_of_the_run_whose_metrics_they_stand_beside(clean):
    """Also where DVC gives back an earlier run's outs; where nobody knows them, they are nulls."""
    before = read_costs(clean)
    assert before["duration_s"]
    clean.run("dvc", "exp", "run", "-n", "first", "-S", "lora.r=3")
    costs = read_costs(clean)
    assert costs["duration_s"] and costs["fingerprint"] != before["fingerprint"]
    restore(clean)
    assert read_costs(clean) == before
    again = clean.run("dvc", "exp", "run", "-n", "again", "-S", "lora.r=3")
    assert "Stage 'train' is cached" in again and stages(again) == {"cost", "gate"}
    assert read_costs(clean) == costs
    rows = list(csv.DictReader(clean.run("dvc", "exp", "show", "--csv").splitlines()))
    shown = {row["Experiment"]: row["duration_s"] for row in rows}
    assert shown["first"] == shown["again"] == str(costs["duration_s"])

    restore(clean)
    shutil.rmtree(clean.folder / "models" / "cost")  # as in a clone of somebody else
    clean.set("lora.r", 3)
    assert "Stage 'train' is cached" in clean.run("dvc", "repro")
    unknown = read_costs(clean)
    assert unknown["fingerprint"] == costs["fingerprint"] and unknown["duration_s"] is None
    assert "the run was made elsewhere" in unknown["reason"]


def restore(repository: Repository) -> None:
    """Go back to what is committed."""
    repository.run("git", "checkout", "-q", "-f", "main")
    repository.run("git", "reset", "-q", "--hard", "main")
    repository.run("dvc", "checkout", "-q", "--force")


def read_costs(repository: Repository) -> dict:
    """metrics/cost.json, which must be of the run that metrics/train.json is of."""
    cost, metrics = (
        json.loads((repository.folder / "metrics" / name).read_text(encoding="utf-8"))
        for name in ("cost.json", "train.json")
    )
    assert cost["fingerprint"] == metrics["fingerprint"]
    return cost


def waiting(repository: Repository) -> bool:
    """Whether an experiment of the queue has not ended."""
    status = repository.run("dvc", "queue", "status")
    assert "Failed" not in status
    return "Queued" in status or "Running" in status


def read_json(output: str) -> dict:
    """What a command printed as JSON; warnings may stand before it."""
    return json.loads(output.splitlines()[-1])
