"""The whole pipeline on a tiny model: what runs, what does not, and that it comes out the same.

The commands that README.md gives are run here and in test_experiments.py, in a repository made from
this one's files.
"""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.repository import Repository, stages, wait_for

pytestmark = pytest.mark.slow
SCORED = {"baseline", "evaluate"}
TRAINED = {"train", "cost", "evaluate", "report", "gate"}
ALL = {"fetch_model", "fetch@law", "preprocess", "baseline"} | TRAINED


def test_a_second_run_does_nothing(clean):
    assert "up to date" in clean.run("dvc", "repro")


# The stages that read each part of params.yaml themselves; what follows from their outs, follows.
# The report prints all of params.yaml, so it is run again with every key.
READERS = {
    "name": {"train"},
    "seed": SCORED | {"train"},
    "launch": {"train"},
    "model": {"fetch_model"},
    "data": {"preprocess"},
    "data.files.law": {"fetch@law", "preprocess"},
    "documents": {"preprocess"},
    "prompt": {"preprocess"},
    "preprocess": {"preprocess"},
    "preprocess.max_length": {"fetch_model", "preprocess"},
    "preprocess.mode": {"preprocess"},
    "mixture": {"preprocess"},
    "quantization": SCORED | {"train", "fetch_model"},
    "compute": SCORED | {"train"},
    "compute.matmul": {"train"},
    "lora": {"train"},
    "lora.modules_to_save": {"train", "fetch_model"},
    "lora.target_modules": {"train", "fetch_model"},
    "train": {"train"},
    "evaluate": SCORED,
    "evaluate.checkpoint": {"evaluate"},
    "evaluate.general_text": {"evaluate"},
    "evaluate.max_new_tokens": SCORED | {"fetch_model"},
    "evaluate.gate": {"gate"},
    "export": set(),
    "export.kinds": {"export@adapter"},
}


@pytest.mark.extended
def test_every_key_of_params_yaml_re_runs_the_stages_that_read_it_and_no_others(clean):
    from dvc.repo import Repo

    path = clean.folder / "params.yaml"
    committed = YAML(typ="safe").load(path)
    wrong = {}
    for key in leaves(committed):
        values = copy.deepcopy(committed)
        change(values, key)
        path.write_text(json.dumps(values), encoding="utf-8")  # which is YAML, and quick to read
        with Repo(str(clean.folder)) as repo:
            changed = {name.rpartition(":")[2] for name in repo.status()}
        longest = max((part for part in READERS if within(key, part)), key=len)
        if changed - {"report"} != READERS[longest]:
            wrong[key] = changed
    assert not wrong


def leaves(values: object, prefix: str = "") -> list[str]:
    """The dotted keys of all values. Kinds of sources without a source have none."""
    if not isinstance(values, dict):
        return [prefix]
    return [leaf for name in values for leaf in leaves(values[name], f"{prefix}.{name}".strip("."))]


def within(key: str, part: str) -> bool:
    return key == part or key.startswith(f"{part}.")


def change(values: dict, key: str) -> None:
    """Give `key` another value; paths stay, since a missing file is another kind of change."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values[parent]
    if key in ("model.folder", "launch.config", "data.files.law.path"):
        values[f"{last}_"] = 1
    elif key == "export.kinds":
        values[last] = ["adapter"]
    else:
        values[last] = "changed" if values[last] != "changed" else "other"


def test_another_way_to_evaluate_scores_both_models_and_trains_none(clean):
    clean.set("evaluate.max_new_tokens", 3)
    assert stages(clean.run("dvc", "repro")) == {
        "fetch_model",
        "baseline",
        "evaluate",
        "report",
        "gate",
    }


def test_a_comment_in_the_prompt_code_re_runs_fetch_model_and_preprocess_and_nothing_after_them(
    clean,
):
    with (clean.folder / "finetune/text/prompts.py").open("a", encoding="utf-8") as file:
        file.write("# a comment\n")
    assert stages(clean.run("dvc", "repro")) == {"fetch_model", "preprocess"}


def test_an_edited_step_of_the_users_own_re_runs_preprocess(clean):
    (clean.folder / "steps/mine.py").write_text("# a step\n", encoding="utf-8")
    assert "preprocess" in stages(clean.run("dvc", "repro", "preprocess"))
    (clean.folder / "steps/mine.py").unlink()


def test_a_source_that_is_no_longer_named_is_no_part_of_what_is_locked(clean):
    """A folder left in data/raw would be in dvc.lock, and "modified" in every clone."""
    before = clean.outs()
    shutil.copytree(clean.folder / "data/raw/law", clean.folder / "data/raw/old")
    assert "preprocess" in clean.run("dvc", "status", "preprocess")
    clean.run("dvc", "repro", "preprocess")
    assert not (clean.folder / "data/raw/old").exists()
    assert (clean.folder / "data/unnamed/old/manifest.json").exists()
    assert clean.outs() == before
    assert "up to date" in clean.run("dvc", "status", "preprocess")
    assert clean.run("git", "status", "--porcelain", "dvc.lock") == ""


def test_a_row_appended_to_a_local_file_re_runs_from_fetch_on(clean):
    path = clean.folder / "data/sample/law.jsonl"
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    row |= {"id": 9999, "title": "May a tenant paint the walls?", "body": "He wants it white. " * 9}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    # By its hash the row is one to train on: the test questions stay, and with them the baseline.
    assert stages(clean.run("dvc", "repro")) == ALL - {"fetch_model", "baseline"}


def test_a_forced_fresh_run_gives_every_out_the_same_hash(clean):
    before = clean.outs()
    output = clean.run("dvc", "repro", "--force", FRESH="1")
    assert "continuing from" not in output
    assert clean.outs() == before
    assert clean.run("git", "status", "--short", "dvc.lock") == ""


def test_another_learning_rate_trains_and_a_killed_run_ends_with_the_same_adapter(clean):
    clean.set("train.learning_rate", 0.03)  # a run that the run cache does not hold yet
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=clean.folder,
        env=clean.plain,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    earlier = set(states(clean))
    wait_for(lambda: set(states(clean)) - earlier)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    output = clean.run("dvc", "repro")
    assert "continuing from" in output and stages(output) == TRAINED
    killed = clean.outs()
    clean.run("dvc", "repro", "--force", "--single-item", "train", FRESH="1")
    assert clean.outs() == killed


def states(repository: Repository) -> list[Path]:
    """The complete states that a run could continue from."""
    return list((repository.folder / "models/resume").glob("*/step-*"))


def test_a_clone_pulls_and_runs_nothing_and_can_train(clean, tmp_path):
    clean.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    clean.run("dvc", "push")
    clean.run("git", "clone", "-q", str(clean.folder), str(tmp_path / "clone"))
    shutil.copy(clean.folder / ".dvc/config", tmp_path / "clone/.dvc/config")
    clone = Repository(tmp_path / "clone", clean.programs)
    clone.run("dvc", "pull")
    assert "up to date" in clone.run("dvc", "repro")
    clone.run("dvc", "repro", "--force", "--single-item", "train")
    assert clone.outs()["models/adapter"] == clean.outs()["models/adapter"]


def test_a_kind_of_export_that_is_listed_is_a_stage_with_its_score(clean, tmp_path):
    clean.set("export.kinds", ["merged"])
    assert stages(clean.run("dvc", "repro")) == {"export@merged", "report", "gate"}
    metrics = json.loads(clean.run("dvc", "metrics", "show", "--json"))
    found = metrics[""]["data"]["metrics/export-merged.json"]["data"]
    assert abs(found["gap"]["loss"]["value"]) < 0.02
    assert "models/export/merged" in clean.outs()
    assert "up to date" in clean.run("dvc", "repro")


def test_dvc_started_by_its_path_finds_the_programs_of_its_environment(clean):
    outside = {"PATH": os.defpath, "VIRTUAL_ENV": "", "CONDA_PREFIX": ""}
    dvc = str(Path(sys.executable).parent / "dvc")
    output = clean.run(dvc, "repro", "--force", "--single-item", "fetch_model", **outside)
    assert stages(output) == {"fetch_model"}


def test_without_an_environment_one_line_says_what_to_do(clean):
    command = ("sh", "stages/run.sh", "no-python", "-m", "stages.fetch.model")
    done = subprocess.run(command, cwd=clean.folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 127
    assert done.stderr.startswith("error: there is no no-python on the PATH: activate")
    assert len(done.stderr.splitlines()) == 1


def test_a_python_without_the_requirements_is_named_in_one_line(clean):
    command = (
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; sys.path.append('.'); import finetune",
    )
    done = subprocess.run(command, cwd=clean.folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {sys.executable} has no pydantic: activate")
    assert len(done.stderr.splitlines()) == 1


def test_the_adapter_answers_a_question_by_itself(clean):
    answer = clean.run(sys.executable, "-m", "tools.generate", "May my landlord keep the deposit?")
    assert answer.strip()
