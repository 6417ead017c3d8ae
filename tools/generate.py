"""Answer questions with the trained adapter, in the way that it was trained.

    python -m tools.generate "May my landlord ...?"
    python -m tools.generate --file questions.jsonl --out answers.jsonl
    python -m tools.generate --chat

Base model, quantisation and prompt come from `settings.json` in the adapter's folder. Weights that
are not on this machine are fetched. Without a question standard input is read. Greedy, as in the
evaluation, unless --temperature is given.
"""

import argparse
import logging
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import run
from tools import quick_start
from tools.question_file import (
    ANSWER,
    BASE_ANSWER,
    check_out,
    name_row,
    read_question_rows,
    write_rows,
)

if TYPE_CHECKING:  # they import torch, and --help takes a tenth of a second
    from tools.assistant import Assistant
    from tools.decoding import Sampling

NEW = "/new"  # a turn that begins another conversation

log = logging.getLogger(__name__)


def main() -> None:
    arguments = _parse()
    check(arguments)
    if arguments.file:
        answer_file(arguments)
    elif arguments.chat:
        converse(arguments)
    else:
        answer_questions(arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.generate",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="?", help="without it standard input is read")
    ways = parser.add_argument_group("other ways to ask")
    ways.add_argument("--lines", action="store_true", help="standard input has a question a line")
    ways.add_argument("--file", type=Path, help="JSON lines: every row is kept, with its answer")
    ways.add_argument("--out", type=Path, help="of --file; without it standard output")
    ways.add_argument("--column", default="question", help="of --file (default: question)")
    ways.add_argument(
        "--chat", action="store_true", help=f"a turn a line; {NEW} begins another conversation"
    )
    ways.add_argument("--stream", action="store_true", help="print the answer as it is written")
    who = parser.add_argument_group("who answers")
    who.add_argument("--adapter", type=Path, default=Path("models/adapter"))
    who.add_argument("--checkpoint", metavar="NAME", help="last or step-N instead of the best")
    who.add_argument("--checkpoints", type=Path, default=Path("models/checkpoints"))
    who.add_argument("--base", action="store_true", help="the base model's answer beside it")
    who.add_argument("--base-only", action="store_true", help="leave the adapter out")
    who.add_argument("--source", help="whose words to ask with, where sources differ in them")
    who.add_argument("--low-memory", action="store_true", help="keep weights in 4 bits")
    who.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    how = parser.add_argument_group("how")
    how.add_argument("--max-new-tokens", type=int, default=128)
    how.add_argument("--temperature", type=float, default=0.0, help="0 (default): greedy")
    how.add_argument("--top-p", type=float, default=1.0)
    how.add_argument("--top-k", type=int, default=0, help="0 (default): all")
    how.add_argument("--seed", type=int, help="the same seed, the same answer")
    return parser.parse_args()


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options out of range, or that do not go together."""
    each = arguments
    ways = [("a question", each.question), ("--lines", each.lines), ("--file", each.file)]
    given = [name for name, value in [*ways, ("--chat", each.chat)] if value]
    many = each.lines or each.file
    drawn = each.top_p != 1 or each.top_k
    wrong = [
        (len(given) > 1, f"{' and '.join(given)}: give one"),
        (each.out and not each.file, f"--out is {each.out}: it is for --file"),
        (each.stream and many, "--stream is for one question; --chat streams by itself"),
        (each.base and (each.chat or each.lines), "--base is for one question and --file"),
        (each.base and each.base_only, "--base and --base-only: give one"),
        (each.checkpoint and each.base_only, "--checkpoint is of the adapter, not --base-only"),
        (each.max_new_tokens < 1, f"--max-new-tokens is {each.max_new_tokens}: at least 1"),
        (not 0 <= each.temperature <= 100, f"--temperature is {each.temperature}: 0 to 100"),
        (not 0 < each.top_p <= 1, f"--top-p is {each.top_p}: above 0, at most 1"),
        (each.top_k < 0, f"--top-k is {each.top_k}: at least 0"),
        (drawn and not each.temperature, "--top-p and --top-k need a --temperature above 0"),
        (each.seed is not None and not 0 <= each.seed < 2**63, f"--seed is {each.seed}: 0 or more"),
    ]
    if found := [reason for is_wrong, reason in wrong if is_wrong]:
        raise ValueError(found[0])


def answer_questions(arguments: argparse.Namespace) -> None:
    """Print the answer to the argument or to standard input, or to each line of it."""
    questions = read_questions(arguments.question, arguments.lines)
    assistant, sampling = load(arguments)
    from tools.assistant import answer_all, render

    prompts = [render(assistant, question, arguments.source) for question in questions]
    for prompt in prompts:
        assistant.check_room(prompt, arguments.max_new_tokens)
    if arguments.lines:
        for answer in answer_all(assistant, prompts, arguments.max_new_tokens, sampling):
            print(" ".join(answer.text.split()))
            _tell_cut(answer.ended, answer.tokens)
        return
    for name in ("base", "tuned") if arguments.base else (None,):
        print(f"{name}: " if name else "", end="")
        options = {"base": name == "base", "whole": not arguments.stream}
        print_answer(assistant, prompts[0], sampling, arguments.max_new_tokens, **options)


def read_questions(question: str | None, lines: bool) -> list[str]:
    """The questions asked. Raises ValueError where there is none."""
    text = sys.stdin.read() if question is None else question
    found = [part.strip() for part in (text.splitlines() if lines else [text]) if part.strip()]
    if not found:
        raise ValueError('there is no question: python -m tools.generate "May my landlord ...?"')
    return found


def load(arguments: argparse.Namespace) -> "tuple[Assistant, Sampling]":
    """The model, and how it draws; a seed that nobody gave is told, so that it can be repeated."""
    assistant = quick_start.open_assistant(arguments, base_only=arguments.base_only)
    from tools.decoding import Sampling

    seed = arguments.seed
    if seed is None:
        seed = secrets.randbits(31) if arguments.temperature else 0
        if arguments.temperature:
            log.info(f"(--seed {seed})")
    return assistant, Sampling(arguments.temperature, arguments.top_p, arguments.top_k, seed)


def print_answer(
    assistant: "Assistant",
    prompt: list[int],
    sampling: "Sampling",
    max_new_tokens: int,
    *,
    base: bool = False,
    whole: bool = False,
) -> str:
    """Print one answer as it is written, or as a `whole` when it ends; its text."""
    with assistant.speaking(base) as model:
        from tools.decoding import Stream, stripped

        stream = Stream(model, assistant.tokenizer, prompt, sampling, max_new_tokens)
        text = ""
        for piece in stripped(iter(stream)):
            text += piece
            print("" if whole else piece, end="", flush=not whole)
    print(text if whole else "", flush=True)
    _tell_cut(stream.ended, stream.tokens)
    return text


def answer_file(arguments: argparse.Namespace) -> None:
    """Write every row of a file with its answer."""
    added = [BASE_ANSWER, ANSWER] if arguments.base else [ANSWER]
    rows = read_question_rows(arguments.file, arguments.column, added)
    check_out(arguments.out, arguments.file)
    assistant, sampling = load(arguments)
    from tools.assistant import answer_all, render

    prompts, known = [], assistant.settings.get("words", {})
    for number, row in enumerate(rows):
        own = row.get("source")
        source = arguments.source or (own if isinstance(own, str) and own in known else None)
        try:
            prompts.append(render(assistant, row[arguments.column].strip(), source))
            assistant.check_room(prompts[-1], arguments.max_new_tokens)
        except ValueError as error:
            raise ValueError(f"{name_row(arguments.file, number)}: {error}") from None
    for column in added:
        base = column == BASE_ANSWER
        answers = answer_all(assistant, prompts, arguments.max_new_tokens, sampling, base=base)
        rows = [row | {column: each.text} for row, each in zip(rows, answers, strict=True)]
        if cut := sum(not answer.ended for answer in answers):
            log.info(
                f"({column}: {cut} of {len(answers)} cut after {arguments.max_new_tokens} tokens; "
                "--max-new-tokens allows more)"
            )
    write_rows(arguments.out, rows)


def converse(arguments: argparse.Namespace) -> None:
    """Answer turn after turn; what was said before is part of each prompt."""
    assistant, sampling = load(arguments)
    from tools.assistant import render_turns

    turns: list[dict[str, Any]] = []
    for number, text in enumerate(_read_turns(), start=1):
        if text == NEW:
            turns = []
            continue
        asked = [*turns, {"role": "user", "content": text}]
        try:
            prompt = render_turns(assistant, asked, arguments.source)
            assistant.check_room(prompt, arguments.max_new_tokens)
        except ValueError as error:
            if not sys.stdin.isatty():
                raise ValueError(f"turn {number}: {error}") from None
            log.error(f"error: {error}")
            continue
        try:
            answer = print_answer(assistant, prompt, sampling, arguments.max_new_tokens)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            log.info("\n(stopped: this turn is not remembered)")
            continue
        turns = [*asked, {"role": "assistant", "content": answer}]


def _read_turns() -> Iterator[str]:
    """Lines with something on them, from the terminal with a prompt, until the end of input."""
    if sys.stdin.isatty():
        import readline  # noqa: F401 (input() then edits and remembers lines)

        log.info(f"(Ctrl-D ends, Ctrl-C stops an answer, {NEW} begins another conversation)")
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not line and not sys.stdin.isatty():
            return
        if line.strip():
            yield line.strip()


def _tell_cut(ended: bool, tokens: int) -> None:
    if not ended:
        log.info(f"(cut after {tokens} tokens; --max-new-tokens allows more)")


if __name__ == "__main__":
    run(main)
