"""Stages that need not wait for imports: forked from a process that has imported the libraries.

    with stage_server.serve(folder) as programs:
        subprocess.run(["dvc", "repro"], env={"PATH": f"{programs}:...", ...})

`programs` holds a `python` that asks the server to fork, hands over its streams, arguments,
environment and folder, and ends as the forked process does. That process imports this project's own
code anew, from the folder that it is started in; only the libraries are there already.
"""

import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = (
    *("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "pandas"),
    *("dvc.repo", "dvclive"),
    *("transformers.trainer", "transformers.models.auto.modeling_auto", "torch.distributed"),
    *("transformers.models.mistral.modeling_mistral", "huggingface_hub", "sacrebleu"),
    *("rouge_score.rouge_scorer", "pydantic", "ruamel.yaml", "pyarrow.parquet", "datasketch"),
    *("trafilatura", "phonenumbers", "datatrove.data", "scrapy.crawler", "aiohttp", "fsspec"),
)
# -I -S: nothing but the standard library is imported, in 20 ms.
CLIENT = """#!{python} -IS
import os, pickle, signal, socket, sys
words = sys.argv[1:]
if words[:1] != ["-m"]:
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    message = pickle.dumps((os.getcwd(), os.environ | {{"STAGE_PYTHON": sys.argv[0]}}, words[1:]))
    socket.send_fds(server, [len(message).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(message)
    process = int.from_bytes(server.recv(4), "big")
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: os.kill(process, number))
    code = int.from_bytes(server.recv(4), "big", signed=True)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Path]:
    """Start a server in `folder`; the folder of the programs that use it."""
    address, programs = folder / "socket", folder / "programs"
    programs.mkdir(parents=True)
    text = CLIENT.format(python=sys.executable, address=str(address))
    (programs / "python").write_text(text, encoding="utf-8")
    (programs / "python").chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.stage_server", str(address)],
        env=os.environ | {"TORCHDYNAMO_DISABLE": "1"},
        stdout=subprocess.DEVNULL,  # the streams of what it runs are those of who asks
    )
    try:
        while not address.exists():
            if server.poll() is not None:
                raise RuntimeError("the server of stages did not start")
            time.sleep(0.05)
        yield programs
    finally:
        server.terminate()
        server.wait()


def main(address: str) -> None:
    """Import the libraries, then fork once for each connection."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever waits for connections is not waited for
    with socket.socket(socket.AF_UNIX) as server:
        partial = f"{address}.partial"
        server.bind(partial)
        server.listen()
        Path(partial).rename(address)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """Run what is asked for in a process of its own, and say how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    message = b""
    while len(message) < int.from_bytes(size, "big"):
        message += connection.recv(1 << 20)
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(streams, *pickle.loads(message))
    )
    process.start()
    connection.sendall(process.pid.to_bytes(4, "big"))
    for stream in streams:
        os.close(stream)
    process.join()
    with contextlib.suppress(OSError):  # whoever asked may have been killed
        connection.sendall(process.exitcode.to_bytes(4, "big", signed=True))


def _run(streams: list[int], folder: str, environment: dict[str, str], words: list[str]) -> None:
    """Become `python -m WORDS` in the folder."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv, sys.executable = words, environment["STAGE_PYTHON"]
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1])
