"""Answer a question with the trained adapter, in the way that it was trained.

Base model, quantisation and prompt come from `settings.json` in the adapter's folder. Weights that
are not on this machine are fetched. The question is the argument, or standard input.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from finetune.checkpoints import find_damage
from finetune.errors import run
from finetune.generation import Answer, answer_prompts
from finetune.model.load import load_adapter, load_base, load_tokenizer
from finetune.model.memory import fit_evaluation
from finetune.model.weights import obtain_exactly
from finetune.params import Compute, Quantization
from finetune.text.prompts import bos_ids, encode, holds_special_token, render_prompts
from finetune.text.templates import Words

BATCH_TOKENS = 8192  # of prompts and answers in one batch, where there are several questions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assistant:
    """A model ready to answer: what `settings.json` says, loaded."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]


def main() -> None:
    arguments = _parse()
    questions = read_questions(arguments.question, arguments.lines)
    assistant = load_assistant(
        arguments.adapter,
        arguments.device,
        base_only=arguments.base_only,
        low_memory=arguments.low_memory,
    )
    prompts = [render(assistant, question, arguments.source) for question in questions]
    for answer in answer_all(assistant, prompts, arguments.max_new_tokens):
        print(" ".join(answer.text.split()) if arguments.lines else answer.text)
        if not answer.ended:
            log.info(f"(cut after {answer.tokens} tokens; --max-new-tokens allows more)")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.generate")
    parser.add_argument("question", nargs="?", help="without it standard input is read")
    parser.add_argument("--lines", action="store_true", help="standard input has a question a line")
    parser.add_argument("--adapter", type=Path, default=Path("models/adapter"))
    parser.add_argument("--source", help="whose words to ask with, where sources differ in them")
    parser.add_argument("--base-only", action="store_true", help="leave the adapter out")
    parser.add_argument("--low-memory", action="store_true", help="keep weights in 4 bits")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    return parser.parse_args()


def read_questions(question: str | None, lines: bool) -> list[str]:
    """The questions asked. Raises ValueError where there is none."""
    text = sys.stdin.read() if question is None else question
    found = [part.strip() for part in (text.splitlines() if lines else [text]) if part.strip()]
    if not found:
        raise ValueError('there is no question: python -m tools.generate "May my landlord ...?"')
    return found


def load_assistant(
    adapter: Path, device: str, *, base_only: bool = False, low_memory: bool = False
) -> Assistant:
    """Load the base model as the adapter's settings say, and the adapter on it.

    `low_memory` keeps the weights in 4 bits where training had unpacked them. Raises ValueError
    where a file of the adapter is missing or is not what was saved.
    """
    if damage := find_damage(adapter):
        raise ValueError(f"{damage}: run `dvc repro`, or `dvc pull {adapter}`")
    settings = json.loads((adapter / "settings.json").read_text(encoding="utf-8"))
    disable_progress_bar()
    compute = Compute(
        device=device, dtype=settings["compute_dtype"], num_threads=None, matmul="bfloat16"
    )
    quantization = Quantization(**settings["quantization"])
    if low_memory:
        quantization = replace(quantization, dequantize=False)
    weights = obtain_exactly(settings["base"])
    quantization, _ = fit_evaluation(weights, quantization, compute, BATCH_TOKENS)
    model = load_base(adapter, quantization, compute, weights)
    if not base_only:
        model = load_adapter(model, adapter)
    return Assistant(model, load_tokenizer(adapter), settings)


def choose_words(settings: dict[str, Any], source: str | None) -> Words:
    """The words that an adapter was trained with: those of a source, where sources differ.

    Raises ValueError, with the sources, where one must be named or is not there.
    """
    known = settings["words"]
    if source is None and len({json.dumps(each, sort_keys=True) for each in known.values()}) == 1:
        source = next(iter(known))
    if source not in known:
        raise ValueError(f"--source is {source or 'missing'}: name one of {', '.join(known)}")
    return Words(**known[source])


def render(assistant: Assistant, question: str, source: str | None = None) -> list[int]:
    """A question's prompt in token ids, as preprocess renders it with the words of `source`.

    The question is cut where the prompt would be longer than any in training. Raises ValueError
    where nothing of it is left, or where it spells a special token.
    """
    tokenizer, settings = assistant.tokenizer, assistant.settings
    if holds_special_token(tokenizer, question):
        raise ValueError("the question spells a special token of the model; write it otherwise")
    if settings["mode"] == "causal":
        return bos_ids(tokenizer) + encode(tokenizer, [question])[0]
    words = choose_words(settings, source)
    [rendered] = render_prompts(tokenizer, words, [question], [settings["max_length"]])
    if rendered is None:
        raise ValueError(f"the prompt alone is above max_length {settings['max_length']}")
    if rendered.cut:
        log.info(f"(the question was cut to {settings['max_length']} tokens with its prompt)")
    return rendered.ids


def answer_all(
    assistant: Assistant, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[Answer]:
    """The answers in the order of the prompts."""
    return answer_prompts(
        assistant.model,
        assistant.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_tokens=BATCH_TOKENS,
        progress=len(prompts) > 1,
    )


if __name__ == "__main__":
    run(main)
