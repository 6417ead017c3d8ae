"""A repository of the pipeline with a tiny run in it, and the commands that a user types there."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]


# Of the environment that the tests run in.
PROGRAMS = [str(Path(sys.executable).parent), os.environ["PATH"]]


class Repository:
    """A folder under git and DVC, and the commands that a user would type there.

    Stages are forked from tests/stage_server.py; `plain` is the environment without it, for what
    is killed or is about how programs are found.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.plain = {
            **os.environ,
            "PATH": os.pathsep.join(PROGRAMS),
            "HF_HUB_OFFLINE": "1",
            "TORCHDYNAMO_DISABLE": "1",  # nothing is compiled, and importing it takes seconds
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }
        self.environment = self.plain | {"PATH": os.pathsep.join([str(programs), *PROGRAMS])}

    def run(self, *command: str, **environment: str) -> str:
        """Run a command to its end; its output, or a failed test with it."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", message)

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
        return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}


def make_repository(
    folder: Path,
    weights: Path,
    programs: Path,
    change_params: Callable[[Path], None] = lambda _: None,
    *targets: str,
) -> Repository:
    """This repository's files with a tiny run in params.yaml, committed after `dvc repro`, of some
    stages or all."""
    made = lay_out(folder, weights, programs, change_params)
    made.run("dvc", "repro", *targets)
    made.commit("run")
    return made


def lay_out(
    folder: Path, weights: Path, programs: Path, change_params: Callable[[Path], None]
) -> Repository:
    """The same before `dvc repro`, committed."""
    names = subprocess.check_output(
        ["git", "ls-files"], cwd=ROOT, text=True, encoding="utf-8"
    ).splitlines()
    for name in names:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "bench/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    shutil.rmtree(folder / "metrics", ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    write_tiny_params(folder, weights)
    change_params(folder / "params.yaml")
    questions = (
        (ROOT / "data/sample/law.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    )
    (folder / "data/sample/law.jsonl").write_text("".join(questions[:80]), encoding="utf-8")
    made = Repository(folder, programs)
    made.run("git", "init", "-q", "-b", "main")
    made.commit("start")
    return made


def write_tiny_params(folder: Path, weights: Path) -> None:
    """params.yaml with a run of presets/law-sample.yaml that takes seconds."""
    yaml = YAML()
    values = yaml.load(folder / "presets/law-sample.yaml")
    values["model"] |= {"source": "folder", "name": "tiny", "revision": None, "file": None}
    values["model"] |= {"sha256": None, "folder": str(weights)}
    values["compute"]["num_threads"] = 1
    values["preprocess"] |= {"max_length": 512, "max_truncated_share": 1.0}
    values["preprocess"] |= {"validation_share": 0.15, "test_share": 0.2}
    values["train"] |= {"max_steps": 6, "eval_steps": 2, "save_steps": 2, "warmup_steps": 1}
    values["train"] |= {"per_device_train_batch_size": 2, "micro_batch_tokens": 1024}
    values["evaluate"] |= {"max_rows": 6, "max_new_tokens": 4, "bootstrap_samples": 50}
    yaml.dump(values, folder / "params.yaml")


def stages(output: str) -> set[str]:
    """The stages that a command of DVC says it runs."""
    return {line.split("'")[1] for line in output.splitlines() if "Running stage" in line}


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return when the condition holds; fail when it does not in time."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.05)
