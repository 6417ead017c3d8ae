"""Fetch the base model: weights into a cache on this machine, their manifest into `models/base`.

In: the `model` section of params.yaml, and what the run will ask of it. Out: manifest.json (what
the weights are, by sha256), and the small files (tokenizer, configuration) that preprocess needs.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from finetune.errors import run
from finetune.model.check import check_base
from finetune.model.weights import describe, obtain
from finetune.params import Model, load
from finetune.records import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    params = load()
    weights = obtain(params.model, lambda folder: check_base(folder, params))
    write_base(params.model, weights, out)


def write_base(model: Model, weights: Path, out: Path) -> None:
    """Write manifest.json and the small files of `weights` to `out`, all or nothing."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    files = describe(weights)
    for name in files:
        if not name.endswith((".safetensors", ".index.json")):
            shutil.copyfile(weights / name, partial / name)
    write_json(partial / "manifest.json", {"model": asdict(model), "files": files})
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    run(main)
