"""Runs a fetch stage as DVC does, in a folder with a params.yaml of its own.

Each run is a process of its own, forked from one that has done the slow imports.
"""

import importlib
import json
import multiprocessing
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML

from finetune.errors import run
from finetune.records import Row, read_rows

ROOT = Path(__file__).parents[1]
PROCESSES = multiprocessing.get_context("forkserver")


def write_params(folder: Path, kind: str, name: str, source: dict[str, Any]) -> None:
    """The committed params.yaml with one source of our own."""
    values = YAML(typ="safe").load(ROOT / "presets/law-sample.yaml")
    values["data"] = {"files": {}, "urls": {}, "hub": {}, "web": {}, kind: {name: source}}
    values["preprocess"] |= {"mode": "causal", "selectors": {}}
    values["documents"], values["mixture"] = {name: {"text": "{text}"}}, {name: 1.0}
    YAML().dump(values, folder / "params.yaml")


def start(
    folder: Path, kind: str, name: str, prelude: str = "", **env: str
) -> multiprocessing.Process:
    """`python -m stages.fetch.KIND NAME data/raw/NAME` in the folder, after a line of Python."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "DVC_", "AWS_"))}
    process = PROCESSES.Process(target=_run, args=(folder, kind, name, prelude, inherited | env))
    process.start()
    return process


def _run(folder: Path, kind: str, name: str, prelude: str, env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    # The hub's clients read their endpoint from the environment when they are imported.
    clients = ("huggingface_hub", "finetune.hub_client", "datasets", "stages.fetch")
    for module in list(sys.modules) if kind == "hub" else []:
        if module.startswith(clients):
            del sys.modules[module]
    for n in (2, 3, 4, 5) if kind == "hub" else ():  # registered by `datasets` on import
        with suppress(KeyError):
            pa.unregister_extension_type(f"datasets.features.features.Array{n}DExtensionType")
    exec(prelude)
    sys.argv = [kind, name, f"data/raw/{name}"]
    run(importlib.import_module(f"stages.fetch.{kind}").main)


def fetch(
    folder: Path, kind: str, source: dict[str, Any], prelude: str = "", **env: str
) -> tuple[int, str]:
    """Fetch a source called `it`; returns the exit code and all that was printed."""
    write_params(folder, kind, "it", source)
    process = start(folder, kind, "it", prelude, **env)
    process.join(240)
    return process.exitcode, (folder / "output").read_text(encoding="utf-8")


def rows(folder: Path) -> list[Row]:
    """What was fetched."""
    return list(read_rows(folder / "data/raw/it"))


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest of what was fetched."""
    return json.loads((folder / "data/raw/it/manifest.json").read_text(encoding="utf-8"))


def assert_one_clear_error(code: int, output: str, *words: str) -> None:
    """Exit code 1, one last line that starts with `error:` and has all words, no traceback."""
    assert code == 1, output
    assert "Traceback" not in output, output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: "), output
    assert all(word in last for word in words), f"{words} not all in: {last}"
