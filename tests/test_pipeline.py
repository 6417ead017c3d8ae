"""The whole pipeline on a tiny model: what runs, what does not, and that it comes out the same.

Every dvc command that README.md gives is run here, in a repository made from this one's files.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
SCORED = {"baseline", "evaluate"}
ALL = {"fetch_model", "fetch@law", "preprocess", "baseline", "train", "evaluate"}


class Repository:
    """A folder under git and DVC, and the commands that a user would type there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    def run(self, *command: str, **environment: str) -> str:
        """Run a command to its end; its output, or a failed test with it."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

    def reproduce(self) -> set[str]:
        """Run `dvc repro`; the stages that it ran."""
        output = self.run("dvc", "repro")
        return {line.split("'")[1] for line in output.splitlines() if "Running stage" in line}

    def set(self, key: str, value: object) -> None:
        """Change one value of params.yaml."""
        yaml, path = YAML(), self.folder / "params.yaml"
        values = yaml.load(path)
        section, name = key.split(".")
        values[section][name] = value
        yaml.dump(values, path)

    def outs(self) -> dict[str, str]:
        """The hash of every out in dvc.lock."""
        lock = YAML(typ="safe").load(self.folder / "dvc.lock")["stages"]
        return {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, tiny_weights) -> Repository:
    """This repository's files with a tiny run in params.yaml, committed after `dvc repro`."""
    folder = tmp_path_factory.mktemp("pipeline") / "repository"
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "bench/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    write_tiny_params(folder, tiny_weights)
    questions = (ROOT / "data/sample/law.jsonl").read_text().splitlines(keepends=True)
    (folder / "data/sample/law.jsonl").write_text("".join(questions[:80]))
    made = Repository(folder)
    made.run("git", "init", "-q", "-b", "main")
    made.commit("start")
    made.run("dvc", "repro")
    made.commit("run")
    return made


@pytest.fixture
def clean(repository) -> Repository:
    """The repository as committed, whatever the test before left."""
    yield repository
    repository.run("git", "reset", "-q", "--hard", "main")
    repository.run("dvc", "checkout", "-q", "--force")


def write_tiny_params(folder: Path, weights: Path) -> None:
    """params.yaml with a run that takes seconds."""
    yaml = YAML()
    values = yaml.load(folder / "params.yaml")
    values["model"] |= {"source": "folder", "name": "tiny", "revision": None, "file": None}
    values["model"] |= {"sha256": None, "folder": str(weights)}
    values["compute"]["num_threads"] = 1
    values["preprocess"] |= {"max_length": 512, "max_truncated_share": 1.0}
    values["preprocess"] |= {"validation_share": 0.15, "test_share": 0.2}
    values["train"] |= {"max_steps": 6, "eval_steps": 2, "save_steps": 2, "warmup_steps": 1}
    values["train"] |= {"per_device_train_batch_size": 2, "micro_batch_tokens": 1024}
    values["evaluate"] |= {"max_rows": 6, "max_new_tokens": 4, "bootstrap_samples": 50}
    yaml.dump(values, folder / "params.yaml")


def test_a_second_run_does_nothing(clean):
    assert "up to date" in clean.run("dvc", "repro")


# The stages that read each part of params.yaml themselves; what follows from their outs, follows.
READERS = {
    "name": {"train"},
    "seed": SCORED | {"train"},
    "launch": {"train"},
    "model": {"fetch_model"},
    "data": {"preprocess"},
    "data.files.law": {"fetch@law", "preprocess"},
    "documents": {"preprocess"},
    "prompt": {"preprocess", "train"},
    "preprocess": {"preprocess"},
    "preprocess.max_length": {"preprocess", "train"},
    "preprocess.mode": {"preprocess", "train"},
    "mixture": {"preprocess"},
    "quantization": SCORED | {"train"},
    "compute": SCORED | {"train"},
    "lora": {"train"},
    "train": {"train"},
    "evaluate": SCORED,
}


def test_every_key_of_params_yaml_re_runs_the_stages_that_read_it_and_no_others(clean):
    from dvc.repo import Repo

    yaml = YAML()
    path = clean.folder / "params.yaml"
    committed = path.read_text()
    wrong = {}
    for key in leaves(yaml.load(committed)):
        values = yaml.load(committed)
        change(values, key)
        yaml.dump(values, path)
        with Repo(str(clean.folder)) as repo:
            changed = {name.rpartition(":")[2] for name in repo.status()}
        longest = max((part for part in READERS if within(key, part)), key=len)
        if changed != READERS[longest]:
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
    else:
        values[last] = "changed" if values[last] != "changed" else "other"


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("train.learning_rate", 0.02, {"train", "evaluate"}),
        ("evaluate.max_new_tokens", 3, {"baseline", "evaluate"}),
    ],
)
def test_a_changed_value_re_runs_what_depends_on_it(clean, key, value, stages):
    clean.set(key, value)
    assert clean.reproduce() == stages


def test_a_comment_in_the_prompt_code_re_runs_preprocess_alone(clean):
    with (clean.folder / "finetune/prompts.py").open("a") as file:
        file.write("# a comment\n")
    assert clean.reproduce() == {"preprocess"}


def test_a_row_appended_to_a_local_file_re_runs_from_fetch_on(clean):
    path = clean.folder / "data/sample/law.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    row |= {"id": 9999, "title": "May a tenant paint the walls?", "body": "He wants it white. " * 9}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    # By its hash the row is one to train on: the test questions stay, and with them the baseline.
    assert clean.reproduce() == ALL - {"fetch_model", "baseline"}


def test_a_forced_fresh_run_gives_every_out_the_same_hash(clean):
    before = clean.outs()
    output = clean.run("dvc", "repro", "--force", FRESH="1")
    assert "continuing from" not in output
    assert clean.outs() == before
    assert clean.run("git", "status", "--short", "dvc.lock") == ""


def test_a_run_killed_while_training_continues_and_ends_with_the_same_adapter(clean):
    clean.set("train.learning_rate", 0.03)  # a run that the run cache does not hold yet
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=clean.folder,
        env=clean.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    earlier = set(states(clean))
    wait_for(lambda: set(states(clean)) - earlier)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "continuing from" in clean.run("dvc", "repro")
    killed = clean.outs()
    clean.run("dvc", "repro", "--force", "--single-item", "train", FRESH="1")
    assert clean.outs() == killed


def states(repository: Repository) -> list[Path]:
    """The complete states that a run could continue from."""
    return list((repository.folder / "models/resume").glob("*/step-*"))


def wait_for(condition, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.05)


def test_experiments_run_compare_and_can_be_drawn(clean):
    clean.run("dvc", "exp", "run", "-n", "r16", "-S", "lora.r=16")
    difference = clean.run("dvc", "metrics", "diff", "--md")
    assert "metrics/train.json" in difference and "trainable" in difference
    assert "lora.r" in clean.run("dvc", "params", "diff")
    clean.run("git", "reset", "-q", "--hard", "main")
    clean.run("dvc", "exp", "run", "--queue", "-S", "lora.r=2,4")
    clean.run("dvc", "exp", "run", "--temp", "-n", "aside", "-S", "train.learning_rate=0.02")
    clean.run("dvc", "queue", "start")
    wait_for(lambda: waiting(clean) == 0, seconds=300)
    table = clean.run("dvc", "exp", "show", "--csv", "--only-changed")
    assert all(f",{r}," in table or table.count(f"{r}") for r in (2, 4, 16)), table
    assert "aside" in table
    assert "lora.r" in clean.run("dvc", "params", "diff", "main", "r16")
    assert "eval_loss" in clean.run("dvc", "metrics", "diff", "main", "r16")
    clean.run("dvc", "plots", "show")
    page = (clean.folder / "dvc_plots/index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") or "cdn" not in page
    clean.run("dvc", "plots", "diff", "main", "r16")


def waiting(repository: Repository) -> int:
    """Experiments of the queue that have not ended."""
    status = repository.run("dvc", "queue", "status")
    return status.count("Queued") + status.count("Running")


def test_a_clone_pulls_and_runs_nothing_and_can_train(clean, tmp_path):
    clean.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    clean.run("dvc", "push")
    clean.run("git", "clone", "-q", str(clean.folder), str(tmp_path / "clone"))
    shutil.copy(clean.folder / ".dvc/config", tmp_path / "clone/.dvc/config")
    clone = Repository(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert "up to date" in clone.run("dvc", "repro")
    clone.run("dvc", "repro", "--force", "--single-item", "train")
    assert clone.outs()["models/adapter"] == clean.outs()["models/adapter"]


def test_the_adapter_answers_a_question_by_itself(clean):
    answer = clean.run(sys.executable, "-m", "tools.generate", "May my landlord keep the deposit?")
    assert answer.strip()
