"""Preprocess 10^7 and 10^8 tokens of real text: memory, a kill in the middle, eight workers.

    apt-get download dict-gcide && dpkg-deb -x dict-gcide_*.deb gcide
    python -m tests.engines.volume models/base gcide/usr/share/dictd/gcide.dict.dz

The text is that of bench/preprocess.py, gone through again in another order of its paragraphs each
time it ends. Three runs of each size must leave the same bytes: one that nobody disturbs, one that
is killed with all of its processes after half of that time and begun again, and one whose tasks
datatrove ran. 10^8 tokens take 6 GB of disk below the folder for temporary files.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench.preprocess import join_paragraphs, make_documents, measure, write_source
from tests.engines.common import ROOT, compare, digests

OUTS = ("data/prepared", "report", "metrics.json")
COUNTED = 200_000  # tokens, from which the documents of all are estimated
RUNS = ("killed", "spread")


def main() -> None:
    arguments = _parse()
    os.environ |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    failed = [try_size(arguments, tokens) for tokens in arguments.tokens]
    sys.exit(any(failed))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.engines.volume")
    parser.add_argument("base", type=Path, help="a tokenizer: models/base")
    parser.add_argument("text", type=Path, help="a large text, gzipped or not")
    parser.add_argument("--tokens", type=int, nargs="+", default=[10**7, 10**8])
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=RUNS, help="beside the first")
    arguments = parser.parse_args()
    arguments.base, arguments.text = arguments.base.resolve(), arguments.text.resolve()
    return arguments


def try_size(arguments: argparse.Namespace, tokens: int) -> bool:
    """Three runs over so many tokens; whether the second or the third was not as the first."""
    with tempfile.TemporaryDirectory() as folder:
        root, failed = Path(folder), False
        write_source(root, _documents(arguments, tokens))
        stage = [sys.executable, "-m", "stages.preprocess", str(arguments.base), "data/raw"]
        stage += [OUTS[0], "--report", OUTS[1], "--metrics", OUTS[2]]
        alone = measure(stage, root)
        expected = digests(root, OUTS)
        size = sum(each.stat().st_size for each in (root / OUTS[0]).rglob("*") if each.is_file())
        _tell(tokens, f"alone; {size / 4e6:.0f} million tokens prepared", alone)
        for name in arguments.runs:
            if name == "killed":
                wrong = _killed(stage, root, tokens, alone.wall / 2)
            else:
                wrong = _spread(stage, root, tokens, arguments.base)
            wrong = wrong or compare(root, OUTS, expected)
            print(f"{name}: {wrong or 'the same bytes'}", flush=True)
            failed |= bool(wrong)
        return failed


def _documents(arguments: argparse.Namespace, tokens: int) -> Iterator[str]:
    """So many tokens, by the length of the first of them."""
    counted = list(make_documents(arguments.text, COUNTED, arguments.base))
    return islice(join_paragraphs(arguments.text), tokens * len(counted) // COUNTED)


def _killed(stage: list[str], root: Path, tokens: int, seconds: float) -> str:
    """Killed after so many seconds, and begun again; what was wrong."""
    _forget(root)
    process = subprocess.Popen(stage, cwd=root, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(seconds)
    if process.poll() is not None:
        return f"{tokens}: it ended before {seconds:.0f} s, nothing was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list((root / "data/work").glob("preprocess-*/**/*.*")))
    rest = measure(stage, root)
    _tell(tokens, f"begun again after a kill at {seconds:.0f} s, {kept} files kept", rest)
    return ""


def _spread(stage: list[str], root: Path, tokens: int, base: Path) -> str:
    """The tasks by datatrove with eight workers, then the stage; what was wrong."""
    _forget(root)
    tool = [sys.executable, "-m", "tools.spread", str(base), "data/raw"]
    _tell(
        tokens, "tools.spread, 8 workers", measure([*tool, "--tasks", "64", "--workers", "8"], root)
    )
    _tell(tokens, "the stage after it", measure(stage, root))
    left = list((root / "data/work").glob("preprocess-*"))
    return f"{left[0]} was not used" if left else ""


def _forget(root: Path) -> None:
    """Leave nothing of a run."""
    for name in (*OUTS, "data/work"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _tell(tokens: int, what: str, cost) -> None:
    print(
        f"| {tokens:.0e} | {what} | {cost.wall:.0f} s | {cost.cpu:.0f} CPU s | "
        f"{cost.memory:,.0f} MB |",
        flush=True,
    )


if __name__ == "__main__":
    main()
