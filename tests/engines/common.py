"""What the scripts share: a tiny repository, the bytes of outs, what differs between two."""

import hashlib
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from safetensors.numpy import load_file

from tests.conftest import write_tiny_weights
from tests.repository import ROOT, Repository, make_repository
from tests.trials.common import remove

SOURCES = 4  # each is a task of preprocess
STEPS = 60  # of training: enough to be interrupted in the middle
TRAINED = ("models/adapter", "models/checkpoints", "reports/train", "metrics/train.json")
PREPARED = ("data/prepared", "reports/data", "metrics/data.json")
ADAPTER = "models/adapter/adapter_model.safetensors"


def prepare(folder: Path) -> Repository:
    """The repository of the tests with several sources and more steps, trained by one process."""
    write_tiny_weights(folder / "weights")
    return make_repository(
        folder / "repository", folder / "weights", Path("/nonexistent"), _enlarge, "train"
    )


def _enlarge(path: Path) -> None:
    yaml = YAML()
    values = yaml.load(path)
    lines = (ROOT / "data/sample/law.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    law, files, documents = values["data"]["files"]["law"], {}, {}
    for number in range(SOURCES):
        name = f"law{number}"
        own = path.parent / f"data/sample/{name}.jsonl"
        own.write_text("".join(lines[number::SOURCES]), encoding="utf-8")
        files[name] = dict(law) | {"path": f"data/sample/{name}.jsonl"}
        documents[name] = dict(values["documents"]["law"])
    values["data"]["files"], values["documents"] = files, documents
    values["mixture"] = dict.fromkeys(files, 1 / SOURCES)
    values["train"] |= {"max_steps": STEPS, "eval_steps": 20, "save_steps": 10, "logging_steps": 10}
    values["train"] |= {"early_stopping_patience": None, "save_total_limit": 2}
    yaml.dump(values, path)


def launch_by(repository: Repository, command: str) -> None:
    """Let two processes train with the same global batch, on CPUs, from now on."""
    repository.set("launch.command", command)
    repository.set("launch.config", "presets/launch/multi-node.yaml")
    repository.set("train.per_device_train_batch_size", 1)
    config = repository.folder / "presets/launch/multi-node.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "use_cpu: true\n", encoding="utf-8")


def forget(repository: Repository) -> None:
    """Leave nothing of training: no outs, no entry in dvc.lock, no run cache, no state."""
    yaml, path = YAML(), repository.folder / "dvc.lock"
    lock = yaml.load(path)
    lock["stages"].pop("train", None)
    yaml.dump(lock, path)
    for name in (*TRAINED, "models/resume", ".dvc/cache/runs"):
        remove(repository.folder / name)


def steps_saved(repository: Repository) -> int:
    """The last step whose checkpoint is whole."""
    found = (repository.folder / "models/resume").glob("*/step-*/trainer_state.json")
    return max((int(each.parent.name.removeprefix("step-")) for each in found), default=0)


def digests(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Path -> sha256 of every file under each of these files and folders."""
    found = {}
    for name in names:
        for path in [root / name, *sorted((root / name).rglob("*"))]:
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[str(path.relative_to(root))] = digest
    return found


def compare(root: Path, names: Iterable[str], expected: dict[str, str]) -> str:
    """What differs from what was expected; "" where nothing does."""
    found = digests(root, names)
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    return f"differ: {', '.join(wrong[:5])}" if wrong or not expected else ""


def distance(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """How far two adapters are apart, as a share of the second's length."""
    if found.keys() != expected.keys():
        return math.inf
    apart = sum(((found[name] - each) ** 2).sum() for name, each in expected.items())
    return math.sqrt(apart / sum((each**2).sum() for each in expected.values()))


def read_adapter(repository: Repository) -> dict[str, np.ndarray]:
    return load_file(repository.folder / ADAPTER)


def run_trials(trials: Iterable[tuple[str, Callable[[], tuple[str, str]]]]) -> None:
    """Run each in order; a trial gives what it measured and what was wrong."""
    failed = 0
    for name, trial in trials:
        told, wrong = trial()
        print(f"{'FAILED' if wrong else 'passed':8}{name}: {told} {wrong}".rstrip(), flush=True)
        failed += bool(wrong)
    sys.exit(bool(failed))
