"""The whole train stage, launched as presets/launch says, on a model of random weights.

    python -m bench.stage law --model /dev/shm/7b --launch presets/launch/ddp.yaml \
        --set train.max_steps=30 train.memory=fixed

Trains, saves, loads the adapter again in a fresh process and compares, as every run does; prints
what it took as one JSON line. The model is made by `python -m bench.train --make`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.engines.own import PRESETS
from bench.workloads import write_split
from finetune.params import Model, load
from stages.fetch.model import write_base

ROOT = Path(__file__).resolve().parents[1]
PATHS = ["models/base", "data/prepared", "models/adapter", "models/checkpoints"]
OUTS = ["--curves", "reports/train", "--metrics", "metrics/train.json", "--cost", "cost.json"]


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_params(folder, arguments)
        params = load(folder / "params.yaml")
        furnish(folder, params.model, arguments.data)
        start = time.monotonic()
        done = subprocess.run(
            [*params.launch.command.split(), "-m", "stages.train", *PATHS, *OUTS],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        )
        result: dict[str, Any] = {"launch": str(arguments.launch), "set": arguments.set}
        result |= {"exit_code": done.returncode, "total_s": round(time.monotonic() - start, 1)}
        if not done.returncode:
            result |= json.loads((folder / "cost.json").read_text(encoding="utf-8"))
            result |= json.loads((folder / "metrics/train.json").read_text(encoding="utf-8"))
    print(json.dumps(result))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--model", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--data", default="law", choices=("law", "causal"))
    parser.add_argument("--launch", type=Path, help="launcher's file; without it, one process")
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE")
    return parser.parse_args()


def write_params(folder: Path, arguments: argparse.Namespace) -> None:
    """The preset with its model replaced by the folder of weights, and what `--set` says."""
    yaml = YAML()
    values = yaml.load(ROOT / PRESETS[arguments.preset])
    values["model"] |= {"source": "folder", "revision": None, "folder": str(arguments.model)}
    values["launch"]["command"] = sys.executable
    if arguments.launch:
        config = str(ROOT / arguments.launch)
        command = f"{sys.executable} -m accelerate.commands.launch --config_file {config}"
        values["launch"] |= {"command": command, "config": config}
    for each in arguments.set:
        key, _, value = each.partition("=")
        section, _, name = key.partition(".")
        values[section][name] = YAML(typ="safe").load(value)
    yaml.dump(values, folder / "params.yaml")


def furnish(folder: Path, model: Model, data: str) -> None:
    """models/base and data/prepared, as the stages before `train` would leave them."""
    (folder / "models").mkdir()
    write_base(model, Path(model.folder), folder / "models/base")
    words = json.loads((Path(model.folder) / "config.json").read_text(encoding="utf-8"))[
        "vocab_size"
    ]
    for split, count in (("train", 4000), ("validation", 16)):
        write_split(folder / "data/prepared" / split, data, count, words)


if __name__ == "__main__":
    main()
