"""The stages with a model, launched as presets/launch says, on random weights.

    python -m bench.stage law --model /dev/shm/7b --launch presets/launch/ddp.yaml \
        --set train.max_steps=30 train.memory=fixed
    python -m bench.stage law --model /dev/shm/7b --cap-gb 12 \
        --set train.max_steps=20 train.eval_steps=10 train.save_steps=10

Scores the base, trains, saves, loads the adapter again in a fresh process and compares, and scores
it, as every run does; prints what it took as one JSON line. With `--cap-gb` another process holds
the rest of the device's memory. The model is made by `python -m bench.train --make`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.engines.own import PRESETS
from bench.workloads import write_split
from finetune.params import Model, load
from stages.fetch.model import write_base

ROOT = Path(__file__).resolve().parents[1]
PATHS = ["models/base", "data/prepared", "models/adapter", "models/checkpoints"]
EVALUATE = [sys.executable, "-m", "stages.evaluate", "models/base", "data/prepared/test"]
ADAPTER = ["--adapter", "models/adapter", "--checkpoints", "models/checkpoints"]
OUTS = ["--curves", "reports/train", "--metrics", "metrics/train.json", "--cost", "cost.json"]


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_params(folder, arguments)
        params = load(folder / "params.yaml")
        furnish(folder, params.model, arguments.data)
        start, codes = time.monotonic(), {}
        train = [*params.launch.command.split(), "-m", "stages.train", *PATHS, *OUTS]
        with hold_memory_above(arguments.cap_gb):
            for stage, command in (
                ("baseline", [*EVALUATE, *_outs("baseline")]),
                ("train", train),
                ("evaluate", [*EVALUATE, *_outs("tuned"), *ADAPTER]),
            ):
                codes[stage] = _run(command, folder)
        result: dict[str, Any] = {"launch": str(arguments.launch), "set": arguments.set}
        result |= {"cap_gb": arguments.cap_gb, "exit_codes": codes}
        result |= {"total_s": round(time.monotonic() - start, 1)}
        if not codes["train"]:
            result |= json.loads((folder / "cost.json").read_text(encoding="utf-8"))
            result |= json.loads((folder / "metrics/train.json").read_text(encoding="utf-8"))
    print(json.dumps(result))


@contextmanager
def hold_memory_above(gigabytes: float | None) -> Iterator[None]:
    """Within, a process holds all of the device's memory but that much."""
    if gigabytes is None:
        yield
        return
    code = (
        "import sys, torch; free, total = torch.cuda.mem_get_info(); "
        "size = free - int(float(sys.argv[1]) * 1e9); "
        "held = torch.empty(size, dtype=torch.uint8, device='cuda'); "
        "print(size, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(gigabytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
        holding.stdout.readline()
        try:
            yield
        finally:
            holding.stdin.close()


def _run(command: list[str], folder: Path) -> int:
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}).returncode


def _outs(name: str) -> list[str]:
    return ["--predictions", f"data/predictions/{name}.jsonl", "--metrics", f"metrics/{name}.json"]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", choices=list(PRESETS))
    parser.add_argument("--model", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--data", default="law", choices=("law", "causal"))
    parser.add_argument("--launch", type=Path, help="launcher's file; without it, one process")
    parser.add_argument("--cap-gb", type=float, help="leave so much of the device's memory")
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
    """models/base and data/prepared, as the stages before these would leave them."""
    (folder / "models").mkdir()
    write_base(model, Path(model.folder), folder / "models/base")
    words = json.loads((Path(model.folder) / "config.json").read_text(encoding="utf-8"))[
        "vocab_size"
    ]
    prepared = folder / "data/prepared"
    for split, count in (("train", 4000), ("validation", 16), ("test", 16)):
        write_split(prepared / split, data, count, words)
    asked = {"mode": "completion", "max_length": 512, "words": {}}
    (prepared / "train/prompt.json").write_text(json.dumps(asked), encoding="utf-8")
    texts = [
        {"id": f"{number:016x}", "source": data, "question": "t3", "reference": "t4"}
        for number in range(16)
    ]
    lines = "".join(f"{json.dumps(text)}\n" for text in texts)
    (prepared / "test/texts.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
