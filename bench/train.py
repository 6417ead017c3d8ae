"""Training throughput and memory of this project and of its peers, side by side.

    python -m bench.train --shape 7b --model /tmp/7b                       # the standard runs
    python -m bench.train --shape 24b --model /tmp/24b --runs own-food-auto --cap-gb 24

Makes a model of random weights in the shape that is asked for (a stand-in: neither speed nor memory
depends on the values), measures each run in a process of its own, prints one JSON line for each,
and a table at the end. The peers run where they are installed: `--peer-python` names their
interpreter if that is another one.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.runs import RUNS, find_run
from bench.versions import find_versions

STANDARD = [
    "own-law-64",
    "own-law-8",
    "own-causal",
    "recipe",
    "trl-packed",
    "unsloth-packed",
    "unsloth-packed-plain",
    "unsloth-padded-plain",
]
COLUMNS = ("tokens_per_s", "share", "peak_gb", "reserved_gb", "warmup_s", "step_s")


def main() -> None:
    arguments = _parse()
    if arguments.child:
        _measure(arguments)
        return
    subprocess.run(_command(arguments, sys.executable, "--make"), check=True)
    facts = _facts(arguments)
    results = []
    for name in arguments.runs:
        result = _start(arguments, name) | {"run": name, "shape": arguments.shape}
        _add_share(result, facts)
        results.append(result)
        print(json.dumps(result), flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(facts | result) + "\n")
    print(json.dumps(facts))
    print(draw_table(results))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="7b", help="7b, 24b, 70b or tiny")
    parser.add_argument("--model", type=Path, required=True, help="where the model is made, or is")
    parser.add_argument("--storage", default="uint8", help="of 4-bit weights; bfloat16 for FSDP")
    parser.add_argument("--layers", type=int, help="instead of the shape's own number")
    parser.add_argument("--runs", nargs="+", default=STANDARD, choices=list(RUNS), metavar="RUN")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a window")
    parser.add_argument("--windows", type=int, default=3, help="whose median counts")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds for a run")
    parser.add_argument("--cap-gb", type=float, help="pretend that the device has so much memory")
    parser.add_argument("--profile", type=Path, help="folder for a table of kernels of each run")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=Path, help="file to which JSON lines are added")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help="make the model, nothing else")
    arguments = parser.parse_args()
    if arguments.make:
        _make(arguments)
        sys.exit()
    return arguments


def _make(arguments: argparse.Namespace) -> None:
    from bench.shapes import make_model

    make_model(arguments.shape, arguments.model, arguments.storage, arguments.layers)


def _facts(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ceiling, hardware, versions and the model's size, from a process that ends again."""
    command = [sys.executable, "-m", "bench.ceiling", arguments.shape]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    facts = json.loads(done.stdout.splitlines()[-1])
    if arguments.layers:
        facts["layer_weights"] *= arguments.layers / facts["layers"]
    return facts


def _command(arguments: argparse.Namespace, python: str, *more: str) -> list[str]:
    options = ["--shape", arguments.shape, "--model", str(arguments.model)]
    options += ["--storage", arguments.storage, "--seconds", str(arguments.seconds)]
    options += ["--windows", str(arguments.windows)]
    if arguments.layers:
        options += ["--layers", str(arguments.layers)]
    if arguments.profile:
        options += ["--profile", str(arguments.profile)]
    if arguments.cap_gb:
        options += ["--cap-gb", str(arguments.cap_gb)]
    return [python, "-m", "bench.train", *options, *more]


def _start(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measure in a process of its own; what went wrong instead of a result if something did."""
    python = sys.executable if find_run(name).engine == "own" else arguments.peer_python
    command, start = _command(arguments, python, "--child", name), time.monotonic()
    try:
        done = subprocess.run(
            command, timeout=arguments.timeout, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
    except subprocess.TimeoutExpired:
        return {"error": f"more than {arguments.timeout:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tokens_per_s"')]
    seconds = {"total_s": round(time.monotonic() - start, 1)}
    if done.returncode and not lines:
        return {"error": f"exit code {done.returncode}", **seconds}
    return json.loads(lines[-1]) | seconds


def _measure(arguments: argparse.Namespace) -> None:
    """In the child: train and print one line."""
    run = find_run(arguments.child)
    # First of all: Unsloth must be imported before what it changes.
    engine = importlib.import_module(f"bench.engines.{run.engine}")
    _cap(arguments.cap_gb)
    words = json.loads((arguments.model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    watch = {
        "seconds": arguments.seconds,
        "windows": arguments.windows,
        "warmup_steps": run.warmup_steps,
        "profile": arguments.profile and arguments.profile / f"{arguments.child}.txt",
    }
    result = engine.measure(run, arguments.model, words, watch)
    if run.engine != "own":
        result["peers"] = find_versions(("transformers", "trl", "unsloth"))
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(result), flush=True)


def _cap(gigabytes: float | None) -> None:
    import torch

    if gigabytes and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / total)


def _add_share(result: dict[str, Any], facts: dict[str, Any]) -> None:
    """The matrix products that must be made (4 operations for a weight and token: forward, and

    back to the inputs; the weights themselves get no gradient), over the ceiling. Head included as
    far as tokens are supervised. What is made again under checkpointing is not counted.
    """
    if "tokens_per_s" not in result or not facts.get("ceiling_tflops"):
        return
    supervised = result.get("supervised_share", 1.0 if "causal" in result["run"] else 0.05)
    weights = facts["layer_weights"] + supervised * facts["head_weights"]
    result["share"] = round(
        4 * weights * result["tokens_per_s"] / facts["ceiling_tflops"] / 1e12, 3
    )


def draw_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of the results."""
    lines = [f"| run | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for result in results:
        cells = [str(result.get(column, "")) for column in COLUMNS]
        if "error" in result:
            cells[0] = result["error"]
        lines.append(f"| {result['run']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
