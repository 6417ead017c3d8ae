"""Tokens of answers a second: this project's generation, and transformers' plain `generate`.

    dvc repro && python -m bench.generate
    python -m bench.train --make --shape 7b --model /dev/shm/7b
    python -m bench.generate --random /dev/shm/7b --rows 116 --all # the law preset, on a GPU
    git show HEAD~1:finetune/generation.py >/tmp/before.py
    python -m bench.generate --before /tmp/before.py

One process loads the model once and lets every kind answer the same test questions, in turn, again
and again (A B C A B C ...), so that what else the machine does meets all of them alike. Greedy, and
at most `evaluate.max_new_tokens`, for all. `plain` pads batches of as many questions as they come;
`plain, grouped` has the very batches of this project; `one at a time`, which is slow, answers a
part of them. As many questions are asked as fit into `--minutes`, by the warm-up's speed, which is
low where the first questions wait for a capture: `--all` asks them all.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.engines.own import PRESETS
from bench.versions import find_versions
from bench.workloads import draw_rows
from finetune import generation
from finetune.errors import run
from finetune.model.load import add_lora, load_adapter, load_base, load_tokenizer
from finetune.params import load
from stages.evaluate.questions import read_questions

WARMUP = 4  # questions, before anything is measured
SINGLE_SHARE = 4  # of so many questions one is asked alone
SINGLE_OF_ALL = 2  # questions asked alone with --all
Answers = tuple[int, int]  # tokens written without end tokens, answers that ended by themselves


@dataclass(frozen=True)
class Setting:
    """A model, what it is asked (token ids), and how much it may write."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[list[int]]
    max_new_tokens: int
    batch_tokens: int

    def part(self, count: int) -> "Setting":
        """The same for the first questions."""
        return Setting(
            *(self.model, self.tokenizer, self.prompts[:count]),
            *(self.max_new_tokens, self.batch_tokens),
        )

    def batches(self) -> list[list[int]]:
        """The rows of each batch of this project."""
        lengths = [len(prompt) for prompt in self.prompts]
        found = generation.batches_by_length(lengths, self.max_new_tokens, self.batch_tokens)
        return list(found)


def main() -> None:
    options = _parse()
    setting = _load(options)
    kinds = _kinds(options)
    counts = _counts(kinds, setting, options)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    for number in range(options.repeats):
        for name, answer in kinds.items():
            found[name].append(_time(answer, setting.part(counts[name])))
            print(json.dumps({"run": name, "round": number, **found[name][-1]}), flush=True)
    results = [_result(name, rounds) for name, rounds in found.items()]
    facts = _facts(options, setting)
    print(json.dumps(facts))
    print(draw_table(results))
    if options.out:
        lines = [json.dumps(facts | result) + "\n" for result in results]
        options.out.write_text("".join(lines), encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--base", type=Path, default=Path("models/base"))
    add("--test", type=Path, default=Path("data/prepared/test"))
    add("--adapter", type=Path, help="measure with it; such as models/adapter")
    add("--random", type=Path, help="a folder of random weights: the law preset's questions")
    add("--packed", action="store_true", help="with --random: weights in 4 bits, not unpacked")
    add("--rows", type=int, default=100, help="questions (default: 100)")
    add("--minutes", type=float, default=4.5, help="of measuring, about (default: 4.5)")
    add("--all", action="store_true", help="ask all questions, whatever time it takes")
    add("--grouped", action="store_true", help="measure generate on this project's batches too")
    add("--repeats", type=int, default=3, help="whose median counts (default: 3)")
    add("--before", type=Path, help="another finetune/generation.py to measure beside")
    add("--out", type=Path, help="file for JSON lines")
    options = parser.parse_args()
    if min(options.rows, options.minutes, options.repeats) <= 0:
        parser.error("--rows, --minutes and --repeats are above 0")
    return options


def _load(options: argparse.Namespace) -> Setting:
    if options.random:
        return _load_random(options)
    params = load()
    questions = read_questions(options.test, options.rows)
    model = load_base(options.base, params.quantization, params.compute)
    model = load_adapter(model, options.adapter) if options.adapter else model
    return Setting(
        model=model.eval(),
        tokenizer=load_tokenizer(options.base),
        prompts=[question.prompt() for question in questions],
        max_new_tokens=params.evaluate.max_new_tokens,
        batch_tokens=params.evaluate.micro_batch_tokens,
    )


def _load_random(options: argparse.Namespace) -> Setting:
    """The law preset with random weights, and questions of its lengths: none ends by itself."""
    params = load(PRESETS["law"])
    quantization = replace(params.quantization, dequantize=not options.packed)
    compute = replace(params.compute, device="auto", dtype="auto")
    base = load_base(options.random, quantization, compute, weights=options.random)
    words = base.get_input_embeddings().weight.shape[0]
    rows = draw_rows("law", options.rows, words)
    return Setting(
        model=add_lora(base, params.lora, params.seed).eval(),
        tokenizer=load_tokenizer(options.random),
        prompts=[ids[:start] for ids, (start, _) in rows],
        max_new_tokens=params.evaluate.max_new_tokens,
        batch_tokens=params.evaluate.micro_batch_tokens,
    )


def _kinds(options: argparse.Namespace) -> dict[str, Callable[[Setting], Answers]]:
    """Name -> how it answers."""
    kinds: dict[str, Callable[[Setting], Answers]] = {"own": _own(generation)}
    if options.before:
        kinds["own, before"] = _own(_import(options.before))
    if options.grouped:
        kinds["plain, grouped"] = lambda each: _plain(each, each.batches())
    kinds["plain"] = lambda each: _plain(each, _in_order(each))
    kinds["one at a time"] = lambda each: _plain(each, [[at] for at in range(len(each.prompts))])
    return kinds


def _counts(
    kinds: dict[str, Callable[[Setting], Answers]], setting: Setting, options: argparse.Namespace
) -> dict[str, int]:
    """How many questions each kind is asked in a round; each has been asked a few when it returns.

    Small batches are slower by question than those that follow, so the time is not exceeded.
    """
    seconds = 0.0  # of one question in each kind
    for name, answer in kinds.items():
        share = SINGLE_SHARE if name == "one at a time" else 1
        part = setting.part(max(1, WARMUP // share))
        seconds += _time(answer, part)["s"] / len(part.prompts) / share
    if options.all:
        every = dict.fromkeys(kinds, len(setting.prompts))
        return every | {"one at a time": min(SINGLE_OF_ALL, len(setting.prompts))}
    fit = int(60 * options.minutes / options.repeats / seconds)
    rows = max(1, min(len(setting.prompts), fit))
    single = max(1, rows // SINGLE_SHARE)
    return {name: single if name == "one at a time" else rows for name in kinds}


def _own(module: ModuleType) -> Callable[[Setting], Answers]:
    def answer(setting: Setting) -> Answers:
        answers = module.answer_prompts(
            *(setting.model, setting.tokenizer, setting.prompts),
            max_new_tokens=setting.max_new_tokens,
            batch_tokens=setting.batch_tokens,
            progress=False,
        )
        return sum(each.tokens for each in answers), sum(each.ended for each in answers)

    return answer


def _in_order(setting: Setting) -> list[list[int]]:
    """As many questions a batch as this project has on average, as they come."""
    rows = len(setting.prompts)
    size = -(-rows // len(setting.batches()))
    return [list(range(at, min(rows, at + size))) for at in range(0, rows, size)]


def _plain(setting: Setting, batches: Sequence[Sequence[int]]) -> Answers:
    """`generate` on left-padded batches, as the documentation of transformers shows it."""
    stops = generation.stop_tokens(setting.model, setting.tokenizer)
    pad, tokens, ended = stops[0], 0, 0
    device = setting.model.get_input_embeddings().weight.device
    for rows in batches:
        width = max(len(setting.prompts[row]) for row in rows)
        ids, mask = torch.full((2, len(rows), width), pad).unbind()
        mask.zero_()
        for at, row in enumerate(rows):
            prompt = setting.prompts[row]
            ids[at, width - len(prompt) :] = torch.tensor(prompt)
            mask[at, width - len(prompt) :] = 1
        with torch.inference_mode():
            out = setting.model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=setting.max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=stops,
                pad_token_id=pad,
            )
        for written in out[:, width:].tolist():
            end = next((at for at, token in enumerate(written) if token in stops), None)
            tokens, ended = tokens + len(written[:end]), ended + (end is not None)
    return tokens, ended


def _import(path: Path) -> ModuleType:
    """Another version of finetune/generation.py under a name of its own."""
    if not path.is_file():
        raise ValueError(f"--before is {path}, which does not exist")
    spec = importlib.util.spec_from_file_location("generation_before", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _time(answer: Callable[[Setting], Answers], setting: Setting) -> dict[str, float]:
    _wait()
    start = time.monotonic()
    tokens, ended = answer(setting)
    _wait()
    seconds = time.monotonic() - start
    return {"s": round(seconds, 3), "answers": len(setting.prompts), "tokens": tokens,
            "ended": ended, "tokens_per_s": round(tokens / seconds, 1)}  # fmt: skip


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _result(name: str, rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The median round."""
    speeds = [each["tokens_per_s"] for each in rounds]
    return {
        "run": name,
        **{key: rounds[0][key] for key in ("answers", "tokens", "ended")},
        "tokens_per_s": statistics.median(speeds),
        "rounds": speeds,
    }


def _facts(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    lengths = [len(prompt) for prompt in setting.prompts]
    return {
        "device": torch.cuda.get_device_name()
        if cuda
        else f"CPU, {torch.get_num_threads()} threads",
        "adapter": str(options.adapter) if options.adapter else None,
        "batches": [len(rows) for rows in setting.batches()],
        "prompt_tokens": [min(lengths), round(statistics.mean(lengths)), max(lengths)],
        "max_new_tokens": setting.max_new_tokens,
        **find_versions(("torch", "transformers", "peft", "bitsandbytes")),
    }


def draw_table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the results; the last column compares with the plain batches."""
    plain = next(each["tokens_per_s"] for each in results if each["run"] == "plain")
    lines = ["| run | answers | tokens | ended | tokens/s | all | / plain |", "|---" * 7 + "|"]
    for each in results:
        every = ", ".join(f"{speed:.1f}" for speed in each["rounds"])
        cells = [each["run"], *(str(each[key]) for key in ("answers", "tokens", "ended"))]
        cells += [f"{each['tokens_per_s']:.1f}", every, f"{each['tokens_per_s'] / plain:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
