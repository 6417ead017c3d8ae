"""Crawl 1,000 and 10,000 pages of a site on loopback: time, memory, a kill in the middle.

    python -m tests.engines.crawl

The pages are the questions of data/sample under a free licence, ten times over, with their numbers.
The crawl of most pages is run a second time, killed after half of them, and begun again: it must
leave the same pages and ask for none twice, but for those that were under way.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from ruamel.yaml import YAML

from bench.preprocess import Cost, measure
from tests import site
from tests.engines.common import ROOT
from tests.repository import write_tiny_params
from tests.trials.common import digest, remove
from tests.trials.kills import crawl_of

OUT = "data/raw/pages"
STAGE = [sys.executable, "-m", "stages.fetch.web", "pages", OUT]
ON_A_LIST = 100  # links of one page
MOST_UNDER_WAY = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.engines.crawl")
    parser.add_argument("--pages", type=int, nargs="+", default=[1_000, 10_000])
    counts = parser.parse_args().pages
    os.environ |= {"PYTHONPATH": str(ROOT), "CRAWL_ALLOW_LOOPBACK": "1"}
    wrong = ""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, site.serve(make_pages(count)) as server:
            root = Path(folder)
            server.handle_error = lambda *_: None  # of a crawl that was killed
            _declare(root, server, count)
            cost = measure(STAGE, root)
            expected = _digests(root)
            _tell(f"{_rows(root):,} pages kept", cost)
            if count == counts[-1]:
                wrong = _killed(root, server, count) or _difference(root, expected)
                print(wrong or "the same pages", flush=True)
    sys.exit(bool(wrong))


def make_pages(count: int):
    """A site of so many pages below lists of a hundred."""
    lines = (ROOT / "data/sample/law.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]

    def pages(_: site.Site) -> dict[str, site.Answer]:
        names = [f"/page-{number}.html" for number in range(count)]
        found = {
            name: site.page(f"{number} {each['title']}</h1><p>{each['body']}</p>{site.CC0}<h1>")
            for number, name in enumerate(names)
            for each in [questions[number % len(questions)]]
        }
        lists = {
            f"/list-{first}.html": site.page("list", *names[first : first + ON_A_LIST])
            for first in range(0, count, ON_A_LIST)
        }
        return {"/": site.page("index", *lists), **lists, **found}

    return pages


def _declare(root: Path, server: site.Site, count: int) -> None:
    (root / "presets").symlink_to(ROOT / "presets")
    write_tiny_params(root, root)
    yaml, path = YAML(), root / "params.yaml"
    values = yaml.load(path)
    values["data"]["web"] = {"pages": crawl_of(server) | {"max_pages": 2 * count}}
    values["mixture"] = {"law": 0.5, "pages": 0.5}
    values["documents"]["pages"] = {"prompt": "{text}", "answer": "{title}"}
    yaml.dump(values, path)


def _killed(root: Path, server: site.Site, count: int) -> str:
    """Killed when half of the pages were asked for, and begun again; what was wrong."""
    for name in (OUT, "data/crawl"):
        remove(root / name)
    before = len(server.log)
    process = subprocess.Popen(
        STAGE, cwd=root, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while len(server.log) - before < count / 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    asked = len(server.log) - before
    _tell(f"begun again after a kill at {asked:,} requests", measure(STAGE, root))
    paths = [path for path in server.asked()[before:] if path.startswith("/page-")]
    twice = len(paths) - len(set(paths))
    print(f"{twice} of {count:,} pages were asked for twice", flush=True)
    return f"{twice} pages twice" if twice > MOST_UNDER_WAY else ""


def _rows(root: Path) -> int:
    return sum(pq.read_metadata(each).num_rows for each in (root / OUT).glob("*.parquet"))


def _digests(root: Path) -> dict[str, str]:
    """What was kept, without the times of fetching."""
    files = (each for each in (root / OUT).iterdir() if each.name != "manifest.json")
    return {each.name: digest(each) for each in sorted(files)}


def _difference(root: Path, expected: dict[str, str]) -> str:
    found = _digests(root)
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    return f"differ: {', '.join(wrong)}" if wrong else ""


def _tell(what: str, cost: Cost) -> None:
    print(f"| {what} | {cost.wall:.0f} s | {cost.cpu:.0f} CPU s | {cost.memory:,.0f} MB |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
