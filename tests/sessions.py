"""Training sessions in processes that can really be killed.

They are forked from a server that has imported torch already, so that each takes a second or two;
where there is a GPU, which no fork may use, each begins anew.
"""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.repository import ROOT

COMMAND = [
    "models/base",
    "data/prepared",
    "models/adapter",
    "models/checkpoints",
    "--curves",
    "reports/train",
    "--metrics",
    "metrics/train.json",
    "--cost",
    "metrics/cost.json",
]
OUTS = ("models/adapter", "models/checkpoints", "reports/train", "metrics/train.json")

_processes = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")


def start(folder: Path, *, at: str = "", environment: dict[str, str] | None = None) -> BaseProcess:
    """Start the train stage in `folder`; what it says goes to log.txt there.

    `at` lets something happen inside: `SIGKILL write_adapter 2` kills the process in the second
    call of that function; `POISON token_nll 3` makes a loss that is no number.
    """
    process = _processes.Process(target=_session, args=(folder, at, environment or {}))
    process.start()
    return process


def start_two(folder: Path, *, at: str = "") -> list[BaseProcess]:
    """Two processes that train together, as torchrun would start them; `at` is for the second."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = []
    for rank in ("0", "1"):
        environment = {**common, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"}
        both.append(start(folder, at=at if rank == "1" else "", environment=environment))
    return both


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def train(folder: Path, **options: object) -> tuple[int, str]:
    """Run the stage to its end: exit code, and all that it has said in this folder."""
    process = start(folder, **options)
    process.join()
    return process.exitcode, (folder / "log.txt").read_text(encoding="utf-8")


def kill_after(folder: Path, seconds: float) -> int:
    """Run the stage and kill it after a while; its exit code, which is -9 unless it was faster."""
    process = start(folder)
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode


def read_outs(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of every file in the stage's outs."""
    files = [file for out in OUTS for file in [folder / out, *(folder / out).rglob("*")]]
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(files) if f.is_file()}


def launch(
    folder: Path, config: str, *words: str, module: Sequence[str] = ("stages.train",)
) -> subprocess.Popen:
    """`accelerate launch` of the stage, or of a module around it, as `config` in `folder` says.

    `words` are the launcher's own. What is logged is in stderr.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, *words]
    return subprocess.Popen(
        [*command, "-m", *module, *COMMAND],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TORCHDYNAMO_DISABLE": "1"},
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def read_history(folder: Path) -> list[dict[str, float]]:
    """What the last checkpoint's trainer has logged."""
    states = (folder / "models/checkpoints").glob("step-*/trainer_state.json")
    return json.loads(sorted(states)[-1].read_text(encoding="utf-8"))["log_history"]


def read_losses(folder: Path) -> dict[int, float]:
    """Step -> training loss."""
    return {entry["step"]: entry["loss"] for entry in read_history(folder) if "loss" in entry}


def _session(folder: Path, at: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = (
        os.fdopen(1, "w", encoding="utf-8"),
        os.fdopen(2, "w", encoding="utf-8"),
    )
    sys.argv = ["train", *COMMAND]
    from finetune.errors import run
    from stages.train import __main__, fingerprint

    # Runs are compared over minutes, in which somebody may be editing the code.
    fingerprint._code = lambda: {"code": "the same"}
    # Loading again in a fresh process takes long, and is tested by itself.
    __main__.verify = lambda *_: None
    if at:
        arm(*at.split())
    run(__main__.main)


def arm(name: str, point: str, count: str) -> None:
    """Send this process the signal `name` in the count-th call of a function."""
    from finetune import checkpoints
    from stages.train import evaluation, saving, training

    where = {
        "write_adapter": saving,
        "_save_optimizer": saving,
        "write_json": checkpoints,
        "token_nll": training,
        "collate_flat": evaluation,
    }
    function, calls = getattr(where[point], point), [0]

    def call(*args: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == int(count):
            if name == "POISON":
                return function(*args, **options) * float("nan")
            os.kill(os.getpid(), getattr(signal, name))
        return function(*args, **options)

    setattr(where[point], point, call)
