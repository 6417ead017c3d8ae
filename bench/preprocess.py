"""Preprocessing against plain `datasets.map`: speed and memory at growing sizes of real text.

    apt-get download dict-gcide && dpkg-deb -x dict-gcide_*.deb gcide
    python -m bench.preprocess models/base gcide/usr/share/dictd/gcide.dict.dz

The text is the GNU Collaborative International Dictionary of English (public domain and GPL), cut
into documents of some 2,000 characters. Both read the same Parquet file, in a process of their own.
"""

import argparse
import gzip
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from finetune.records import Row, RowWriter

CHARACTERS = 2_000  # of a document
PLAIN = """
import json, sys
from datasets import disable_progress_bars, load_dataset
from transformers import AutoTokenizer
base, rows, cache, workers = sys.argv[1:]
disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(base)
data = load_dataset("parquet", data_files=rows, split="train", cache_dir=cache)
data.map(
    lambda batch: tokenizer(
        [json.loads(row)["text"] for row in batch["row"]], add_special_tokens=False
    ),
    batched=True,
    remove_columns=data.column_names,
    num_proc=int(workers) or None,
)
"""


@dataclass(frozen=True)
class Cost:
    """Of one run: wall and CPU seconds, and the most memory of all its processes in MB."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    arguments = _parse()
    print("tokens  what  wall s  CPU s  peak MB  tokens/s")
    for tokens in arguments.tokens:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_source(root, make_documents(arguments.text, tokens, arguments.base))
            for name, command in _commands(arguments, root).items():
                costs = [measure(command(n), root) for n in range(arguments.repeats)]
                _tell(tokens, name, costs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="a tokenizer: models/base")
    parser.add_argument("text", type=Path, help="a large text, gzipped or not")
    parser.add_argument("--tokens", type=int, nargs="+", default=[10**5, 10**6, 10**7])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.base, arguments.text = arguments.base.resolve(), arguments.text.resolve()
    return arguments


def make_documents(text: Path, tokens: int, base: Path) -> Iterator[str]:
    """Paragraphs joined to documents, until there are so many tokens."""
    from finetune.text.prompts import encode, open_tokenizer

    tokenizer, count = open_tokenizer(base), 0
    for document in join_paragraphs(text):
        count += len(encode(tokenizer, [document])[0])
        yield document
        if count >= tokens:
            return


def join_paragraphs(text: Path) -> Iterator[str]:
    """Documents of some paragraphs each, without end."""
    parts: list[str] = []
    for paragraph in _paragraphs(text):
        parts.append(paragraph)
        if sum(map(len, parts)) >= CHARACTERS:
            yield "\n\n".join(parts)
            parts = []


def _paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a text, and again without end, in another order each time: documents of
    several paragraphs are then new ones."""
    data, drawn = path.read_bytes(), random.Random(0)
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode(errors="replace")
    paragraphs = text.split("\n\n")
    while True:
        yield from paragraphs
        drawn.shuffle(paragraphs)


def write_source(root: Path, documents: Iterable[str]) -> None:
    """The source as fetched, and a params.yaml that makes the most of preprocess."""
    with RowWriter(root / "data/raw/text") as writer:
        for number, text in enumerate(documents):
            writer.write(Row({"text": text}, "", f"text:{number}", "", "", ""))
        writer.write_manifest({"rows": writer.count})
    yaml = YAML()
    values = yaml.load(Path("params.yaml"))
    source = {"path": "text", "files": {}, "license": "CC0-1.0", "evidence": "none"}
    values["data"] = {"files": {"text": source}, "urls": {}, "hub": {}, "web": {}}
    values["documents"], values["mixture"] = {"text": {"text": "{text}"}}, {"text": 1.0}
    values["preprocess"] |= {"mode": "causal", "max_length": 1024, "mixture_unit": "tokens"}
    values["train"]["micro_batch_tokens"] = values["evaluate"]["micro_batch_tokens"] = 1024
    for name, near in (("params.yaml", True), ("bare.yaml", False)):
        values["preprocess"]["near_duplicates"] = near
        if not near:
            kinds = ("emails", "phones", "cards", "keys", "ibans", "national_ids", "ips")
            values["preprocess"] |= dict.fromkeys(kinds, "keep")
        yaml.dump(values, root / name)


def _commands(arguments: argparse.Namespace, root: Path):
    """What is measured, by name: a function that gives the command of each repetition."""
    rows = str(root / "data/raw/text/rows-*.parquet")
    stage = [sys.executable, "-m", "stages.preprocess", str(arguments.base), "data/raw", "out"]
    stage += ["--metrics", "metrics.json", "--report", "report"]

    def plain(workers: int):
        script = [sys.executable, "-c", PLAIN, str(arguments.base), rows]
        return lambda n: [*script, str(root / f"cache-{workers}-{n}"), str(workers)]

    return {
        "datasets.map, the tokenizer's threads": plain(0),
        "datasets.map, a process for each core": plain(os.cpu_count() or 1),
        "preprocess, all of it": lambda n: stage,
        "preprocess without near-duplicates and masks": lambda n: [
            *("sh", "-c", 'cp bare.yaml params.yaml && exec "$@"', "sh"),
            *stage,
        ],
    }


def measure(command: list[str], root: Path) -> Cost:
    before, begun = os.times(), time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        command, cwd=root, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    peak: list[float] = [0.0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    _, error = process.communicate()
    watcher.join()
    if process.returncode:
        raise RuntimeError(error.decode()[-2000:])
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return Cost(time.monotonic() - begun, cpu, peak[0])


def watch(process: subprocess.Popen, peak: list[float]) -> None:
    """The most memory of a process and all below it. Pages of mapped files are not counted: the
    system takes them back when it needs them."""
    while process.poll() is None:
        try:
            parent = psutil.Process(process.pid)
            memory = sum(
                _anonymous(each.pid) for each in [parent, *parent.children(recursive=True)]
            )
        except psutil.NoSuchProcess:
            return
        peak[0] = max(peak[0], memory)
        time.sleep(0.05)


def _anonymous(pid: int) -> float:
    """A process's share of memory that is no file's, in MB."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) / 1e3


def _tell(tokens: int, name: str, costs: list[Cost]) -> None:
    wall, cpu = (statistics.median(getattr(c, n) for c in costs) for n in ("wall", "cpu"))
    memory = max(cost.memory for cost in costs)
    numbers = f"{wall:.1f} | {cpu:.1f} | {memory:,.0f} | {tokens / wall:,.0f}"
    print(f"| {tokens:.0e} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
