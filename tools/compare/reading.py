"""A run's predictions, metrics and prompt, from the workspace or from what DVC has cached."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.evaluate.predictions import Prediction, parse_predictions


@dataclass(frozen=True)
class Run:
    """A named run: its predictions, its metrics, and what the model was asked with."""

    name: str
    predictions: list[Prediction]
    metrics: dict[str, Any]
    asked: dict[str, Any]


def read_run(name: str, model: str) -> Run:
    """The run of a revision. Raises ValueError where it has none, with what would bring it."""
    revision = resolve(name)
    path = f"data/predictions/{model}.jsonl"
    predictions = parse_predictions(read_file(name, revision, path), f"{path} of {name}")
    if not predictions:
        raise ValueError(f"{path} of {name} has no row")
    metrics = json.loads(read_file(name, revision, f"metrics/{model}.json"))
    return Run(name, predictions, metrics, _asked(read_file(name, revision, "params.yaml")))


def resolve(name: str) -> str | None:
    """The commit of a commit, branch, tag or experiment; None for the workspace."""
    if name == "workspace":
        return None
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev

    with Repo() as repo:
        try:
            return resolve_rev(repo.scm, name)
        except RevError:
            known = sorted(
                each[0] for found in repo.experiments.ls(all_commits=True).values()
                for each in found if each[0]
            )  # fmt: skip
            raise ValueError(
                f"{name} is no commit, branch, tag or experiment; experiments: "
                f"{', '.join(known) or 'none'} (`dvc exp pull` brings others')"
            ) from None


def read_file(name: str, revision: str | None, path: str) -> str:
    """A file's text as of a commit, from Git or from DVC's cache or remote."""
    if revision is None:
        try:
            return Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ValueError(f"the workspace has no {path}: run `dvc repro`") from None
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        return dvc.api.read(path, rev=revision, encoding="utf-8")
    except (DvcException, FileNotFoundError) as error:
        raise ValueError(
            f"{name} has no {path} within reach: run it, or bring it with `dvc fetch` on that "
            f"commit or `dvc exp pull` ({type(error).__name__})"
        ) from None


def _asked(params: str) -> dict[str, Any]:
    """What shapes a prompt beside the question: the words around it, and the base model."""
    from ruamel.yaml import YAML

    values = YAML(typ="safe").load(params)
    words = {
        name: {key: about.get(key) for key in ("prompt", "system", "instruction")}
        for name, about in values.get("documents", {}).items()
    }
    model = {key: values.get("model", {}).get(key) for key in ("name", "revision", "file")}
    return {"prompt": values.get("prompt"), "documents": words, "model": model}
