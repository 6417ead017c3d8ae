"""Ask another model which of two answers is better, for every test row that both runs have.

Without names the tuned model is compared with the base model, as in the workspace; with two names
(commits, branches, tags, experiments, `workspace`) the second run with the first. The judge is any
OpenAI-compatible server: JUDGE_BASE_URL, JUDGE_MODEL, and JUDGE_API_KEY where it wants one. Each
pair is judged in both orders, and is a tie where they disagree. Replies are kept: a second run
asks nothing, and an interrupted one continues.
"""

import argparse
import hashlib
import json
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.errors import run
from finetune.records import write_json
from stages.evaluate.predictions import Prediction
from tools.compare.pairing import shared_rows
from tools.compare.reading import Run, read_run
from tools.judge.asking import Request, ask_all, make_requests
from tools.judge.prompt import read_template
from tools.judge.replies import Replies
from tools.judge.results import as_text, count_replies, judge_row, summarize
from tools.judge.server import find_server

REPLIES = Path("data/judge")
PROMPT = Path(__file__).with_name("prompt.md")
FIXED = {"model", "messages", "stream", "n"}  # of a request
log = logging.getLogger(__name__)


def main() -> None:
    options = _parse()
    run(lambda: judge(options))


def judge(options: argparse.Namespace) -> None:
    """Ask what is not known yet, and write what all replies say."""
    server, template = find_server(options.timeout), read_template(options.prompt)
    first, second, rows = _rows(options)
    pairs = [make_requests(template, server.model, options.request, *both) for both in rows]
    requests = [each for pair in pairs for each in pair]
    replies = Replies(options.replies)
    _announce(options.replies, requests, replies)
    if options.dry_run:
        return
    try:
        ask_all(server, requests, replies, options.parallel)
    except KeyboardInterrupt:
        sys.exit("interrupted: the replies so far are kept; the same command continues")
    replies.finish()
    metrics = {
        "first": first.name,
        "second": second.name,
        "model": server.model,
        "prompt": hashlib.sha256(template.text.encode()).hexdigest()[:16],
        **summarize(
            [one for one, _ in rows],
            [judge_row(pair, replies) for pair in pairs],
            samples=options.samples,
            seed=options.seed,
        ),
        **count_replies(requests, replies),
    }
    write_json(options.metrics, metrics)
    print(as_text(metrics))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.judge",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="*", metavar="REV", help="none, or two: the first is compared with")
    add("--model", choices=("tuned", "baseline"), default="tuned", help="of two runs")
    add("--anyway", action="store_true", help="though rows or prompt differ")
    add("--max-rows", type=int, help="judge the first so many, a random sample of all")
    add("--replies", type=Path, help=f"default: {REPLIES}/NAME.jsonl, by what is compared")
    add("--metrics", type=Path, default=Path("metrics/judge.json"))
    add("--prompt", type=Path, default=PROMPT, help="default: tools/judge/prompt.md")
    add("--request", default="{}", help="JSON: settings sent; null takes one out")
    add("--parallel", type=int, default=4, help="requests at a time (default: 4)")
    add("--timeout", type=float, default=120.0, help="seconds for a reply (default: 120)")
    add("--dry-run", action="store_true", help="say how much would be asked, and ask nothing")
    add("--samples", type=int, default=10_000, help="bootstrap draws")
    add("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    if len(options.runs) not in (0, 2):
        parser.error("name no run, for tuned against base, or two, such as: HEAD workspace")
    if min(options.parallel, options.timeout, options.max_rows or 1) <= 0 or options.samples < 100:
        parser.error("--parallel, --timeout, --max-rows are above 0, --samples is at least 100")
    try:
        options.request = _settings(options.request)
    except ValueError as error:
        parser.error(f"--request is {options.request!r}: {error}")
    options.replies = options.replies or REPLIES / f"{_file_name(options.runs)}.jsonl"
    return options


def _settings(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict) or FIXED & set(value):
        raise ValueError(f"write one JSON object without {', '.join(sorted(FIXED))}")
    return value


def _file_name(runs: list[str]) -> str:
    """`tuned`, or the names of both runs without what a file's name may not have."""
    return re.sub(r"[^\w.-]+", "_", "-".join(runs)) or "tuned"


def _rows(options: argparse.Namespace) -> tuple[Run, Run, list[tuple[Prediction, Prediction]]]:
    """Both runs, and the rows of both that ask something."""
    if options.runs:
        first, second = (read_run(name, options.model) for name in options.runs)
    else:
        first, second = (
            replace(read_run("workspace", model), name=name)
            for model, name in (("baseline", "base"), ("tuned", "tuned"))
        )
    one, two, notes = shared_rows(first, second, options.anyway)
    for note in notes:
        log.warning("note: %s", note)
    rows = [both for both in zip(one, two, strict=True) if both[0].question]
    if not rows:
        raise ValueError("no row asks a question: a judge has nothing to compare")
    return first, second, rows[: options.max_rows]


def _announce(path: Path, requests: list[Request], replies: Replies) -> None:
    """How much is asked: what the user pays for."""
    different = {each.key: each for each in requests}
    todo = [each for key, each in different.items() if key not in replies]
    log.info(
        f"{len(different)} replies are wanted, {len(different) - len(todo)} are in {path}; "
        f"{len(todo)} to ask, with {sum(each.characters for each in todo):,} characters of prompts"
    )


if __name__ == "__main__":
    main()
