"""Kill `dvc repro` with SIGKILL at random moments, stage by stage; what follows must be the same.

    python -m tests.trials.kills --trials 42 --seed 1
    python -m tests.trials.kills --trials 8 --stages export@merged export@gguf

On the tiny model of the tests, with a local file, a file on a slow server and a slow site to crawl.
A trial begins a stage from nothing (no outs, no lock entry, no run cache, no state of its own),
kills the whole process group after a random part of the time that the stage takes, and runs `dvc
repro` to its end. It passes where that ends with 0, every out has the bytes of the run that nobody
disturbed (of a crawl, whose records carry the time of their fetching: the same pages), and the next
`dvc repro` finds nothing to do. Prints a line a trial and a table; ends with 1 if one failed.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ruamel.yaml import YAML

from tests import hub_server, site, stage_server
from tests.conftest import write_tiny_weights
from tests.repository import ROOT, Repository, make_repository
from tests.trials.common import check, forget, quick, read_outs

STAGES = (
    *("fetch_model", "fetch@law", "fetch_url@extra", "fetch_web@pages", "preprocess", "baseline"),
    *("train", "evaluate", "report", "gate"),
    *("export@adapter", "export@merged", "export@gguf", "export@gguf-adapter"),
)
PAGES = 12
SLOW_S = 0.15  # a page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.trials.kills")
    parser.add_argument("--trials", type=int, default=42)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES)
    arguments = parser.parse_args()
    drawn = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        repository = prepare(Path(folder), servers, arguments.stages)
        expected, took = read_outs(repository), {}
        counts: dict[str, list[bool]] = {}
        for number in range(arguments.trials):
            stage = arguments.stages[number % len(arguments.stages)]
            if stage not in took:
                took[stage] = duration(repository, stage)
            after = kill(repository, stage, drawn.uniform(0.0, took[stage]))
            wrong = check(quick(repository), expected)
            counts.setdefault(stage, []).append(not wrong)
            print(f"{number + 1:3} {stage:16} killed after {after:5.1f} s: {wrong or 'the same'}")
            sys.stdout.flush()
        print()
        for stage, passed in counts.items():
            print(f"{stage:16} {sum(passed)} of {len(passed)}")
        total = [each for passed in counts.values() for each in passed]
        print(f"{'all':16} {sum(total)} of {len(total)}")
        sys.exit(not all(total))


def prepare(folder: Path, servers: ExitStack, stages: Sequence[str]) -> Repository:
    """The repository of the tests with three sources and the exports that are to be killed.

    It is run once and committed.
    """
    write_tiny_weights(folder / "weights")
    files, pages = servers.enter_context(hub_server.serve()), servers.enter_context(slow_site())
    lines = (ROOT / "data/sample/law.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    extra = "".join(lines[100:160]).encode()
    files.files["/extra.jsonl"] = extra
    os.environ |= {"CRAWL_ALLOW_LOOPBACK": "1", "OMP_NUM_THREADS": "1"}
    programs = servers.enter_context(stage_server.serve(folder / "server"))

    def add_sources(path: Path) -> None:
        yaml = YAML()
        values = yaml.load(path)
        values["data"]["urls"] = {
            "extra": {
                "files": {"all": f"{files.endpoint}/extra.jsonl"},
                "sha256": {"all": hashlib.sha256(extra).hexdigest()},
                "license": "CC0-1.0",
                "evidence": "written for this project",
            }
        }
        values["data"]["web"] = {"pages": crawl_of(pages)}
        law = dict(values["documents"]["law"])
        values["documents"]["extra"] = law
        values["documents"]["pages"] = law | {"prompt": "{text}", "answer": "{title}"}
        values["documents"]["pages"].pop("label", None)
        values["mixture"] = {"law": 0.8, "extra": 0.15, "pages": 0.05}
        kinds = [each.partition("@")[2] for each in stages if each.startswith("export@")]
        values["export"]["kinds"] = kinds
        yaml.dump(values, path)

    made = make_repository(folder / "repository", folder / "weights", programs, add_sources)
    made.environment = made.plain  # what is killed and timed is what a user would start
    return made


def slow_site() -> object:
    """A dozen pages under a free licence, each of which lets one wait."""

    def pages(server: site.Site) -> dict[str, site.Answer]:
        links = "".join(f'<a href="/{n}.html">{n}</a> ' for n in range(PAGES))
        made = {"/": links}
        for number in range(PAGES):
            words = f"Whoever rents flat {number} may paint its walls before moving out. " * 12
            made[f"/{number}.html"] = f"<h1>May tenant {number} paint?</h1><p>{words}</p>{links}"
        return {
            path: site.Answer(
                f"<html><title>Page {path}</title><body>{body}{site.CC0}</body></html>".encode(),
                headers={"Content-Type": "text/html"},
                wait_s=SLOW_S,
            )
            for path, body in made.items()
        }

    return site.serve(pages)


def crawl_of(server: site.Site) -> dict:
    """The source that crawls the site."""
    return {
        "start_urls": [f"{server.url}/"],
        "sitemaps": [],
        "allowed_paths": [],
        "max_depth": 4,
        "max_pages": 100,
        "max_page_bytes": 1_000_000,
        "delay": 0.0,
        "timeout": 5.0,
        "revisit_days": 30.0,
        "contact": "tests@example.org",
        "allowed_licenses": ["CC0-1.0"],
        "declared_license": None,
        "evidence": None,
    }


def duration(repository: Repository, stage: str) -> float:
    """Seconds that the stage takes from nothing."""
    forget(repository, stage)
    start = time.monotonic()
    repository.run("dvc", "repro", "--single-item", stage)
    return time.monotonic() - start


def kill(repository: Repository, stage: str, seconds: float) -> float:
    """Start the stage from nothing and kill it after a while; how long it lived.

    Tried again with less where it was faster than the kill.
    """
    while True:
        forget(repository, stage)
        process = subprocess.Popen(
            ["dvc", "repro", "--single-item", stage],
            cwd=repository.folder,
            env=repository.plain,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
            seconds *= 0.8
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return seconds


if __name__ == "__main__":
    main()
