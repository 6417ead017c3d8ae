"""A model ready to answer with the trained adapter, from what lies in the adapter's folder.

`settings.json` there names base model, quantisation and the words of the prompt. Weights that are
not on this machine are fetched.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from finetune.checkpoints import find_damage, list_steps
from finetune.generation import Answer, answer_prompts, prepare
from finetune.model.load import load_tokenizer
from finetune.text.prompts import (
    bos_ids,
    encode,
    holds_special_token,
    render_prompts,
    with_instruction,
)
from finetune.text.templates import Message, Words, apply_template
from finetune.trained import load_trained, read_settings
from tools.decoding import GREEDY, Sampling, sample_prompts

BATCH_TOKENS = 8192  # of prompts and answers in one batch, where there are several questions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assistant:
    """A model ready to answer: what `settings.json` says, loaded."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]

    @property
    def context(self) -> int | None:
        """How many tokens the model takes, prompt and answer together; None where it has no end."""
        config = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    @property
    def has_base(self) -> bool:
        """Whether the base answers as it was: trained biases stay when the adapter is off."""
        adapted = isinstance(self.model, PeftModel)
        return not adapted or self.model.active_peft_config.bias == "none"

    def check_room(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Raise ValueError where prompt and answer could be longer than the model's context."""
        if self.context is not None and len(prompt) + max_new_tokens > self.context:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens and the answer may have {max_new_tokens}: "
                f"the model takes {self.context} together; ask shorter, or allow fewer"
            )

    @contextmanager
    def speaking(self, base: bool) -> Iterator[PreTrainedModel | PeftModel]:
        """The model in evaluation mode; without its adapter where the `base` is asked."""
        prepare(self.model)
        off = base and isinstance(self.model, PeftModel)
        if base and not self.has_base:
            raise ValueError(
                "the adapter has trained the base's biases (lora.bias), which it cannot put back: "
                "for the base alone use --base-only"
            )
        with self.model.disable_adapter() if off else nullcontext():
            yield self.model


def find_checkpoint(adapter: Path, name: str | None, checkpoints: Path) -> Path:
    """The folder whose weights answer: the adapter's own, or that of a checkpoint.

    `name` is None, `last` or `step-N` (or N alone). Raises ValueError, with the steps that there
    are, where it is none of them, or where a file is missing or is not what was saved.
    """
    folder = adapter
    if name is not None:
        steps = {path.name: path for path in list_steps(checkpoints).values()}
        named = steps | ({"last": list(steps.values())[-1]} if steps else {})
        found = named.get(f"step-{name}" if name.isdecimal() else name)
        if found is None:
            there = ", ".join(steps) or "no step"
            raise ValueError(f"--checkpoint is {name}: in {checkpoints} there is {there}")
        folder = found
    _check_whole(folder)
    return folder


def _check_whole(folder: Path) -> None:
    if damage := find_damage(folder):
        raise ValueError(f"{damage}: run `dvc repro`, or `dvc pull {folder}`")


def load_assistant(
    adapter: Path,
    device: str,
    *,
    base_only: bool = False,
    low_memory: bool = False,
    checkpoint: Path | None = None,
) -> Assistant:
    """Load the base model as the adapter's settings say, and the adapter on it.

    `low_memory` keeps the weights in 4 bits where training had unpacked them; `checkpoint` is a
    folder with other weights of the same adapter. Raises ValueError where a file of the adapter
    is missing or is not what was saved.
    """
    _check_whole(adapter)
    disable_progress_bar()
    model = load_trained(
        adapter,
        device,
        BATCH_TOKENS,
        base_only=base_only,
        low_memory=low_memory,
        checkpoint=checkpoint,
    )
    return Assistant(model, load_tokenizer(adapter), read_settings(adapter))


def choose_words(settings: dict[str, Any], source: str | None) -> Words:
    """The words that an adapter was trained with: those of a source, where sources differ.

    Raises ValueError, with the sources, where one must be named or is not there.
    """
    known = settings["words"]
    if source is None and len({json.dumps(each, sort_keys=True) for each in known.values()}) == 1:
        source = next(iter(known))
    if source not in known:
        raise ValueError(
            f"source is {source or 'missing'}: name one of {', '.join(known)}, whose words differ "
            "(--source, or source in a request)"
        )
    return Words(**known[source])


def render(assistant: Assistant, question: str, source: str | None = None) -> list[int]:
    """A question's prompt in token ids, as preprocess renders it with the words of `source`.

    The question is cut where the prompt would be longer than any in training. Raises ValueError
    where nothing of it is left, or where it spells a special token.
    """
    tokenizer, settings = assistant.tokenizer, assistant.settings
    _refuse_special_tokens(tokenizer, "question", question)
    if settings["mode"] == "causal":
        return bos_ids(tokenizer) + encode(tokenizer, [question])[0]
    words = choose_words(settings, source)
    [rendered] = render_prompts(tokenizer, words, [question], [settings["max_length"]])
    if rendered is None:
        raise ValueError(f"the prompt alone is above max_length {settings['max_length']}")
    if rendered.cut:
        log.info(f"(the question was cut to {settings['max_length']} tokens with its prompt)")
    return rendered.ids


def render_turns(
    assistant: Assistant, turns: Sequence[Message], source: str | None = None
) -> list[int]:
    """A conversation's prompt in token ids, as preprocess renders it: by the chat template.

    `turns` end with the user's. They get the words of `source`, unless they begin with a system's
    turn: then they are rendered as they are. Raises ValueError for a turn that spells a special
    token, for turns that the template refuses, and for an adapter whose training had no turns.
    """
    tokenizer, settings = assistant.tokenizer, assistant.settings
    if settings["mode"] == "causal":
        raise ValueError("the adapter was trained on plain text, which has no turns")
    words = choose_words(settings, source)
    if turns[0]["role"] == "system":
        words = replace(words, system=None, instruction="")
    if words.template == "plain":
        if len(turns) > 1:
            raise ValueError(
                "the adapter was trained with prompt.template plain, which has no turns: ask one "
                "question, without a system's words"
            )
        return render(assistant, turns[0]["content"], source)
    for turn in turns:
        _refuse_special_tokens(tokenizer, f"{turn['role']}'s turn", turn["content"])
    try:
        messages = with_instruction(tokenizer, words, turns)
        text = apply_template(tokenizer, words, messages, answer_next=True)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses these turns: {error}") from None
    return encode(tokenizer, [text])[0]


def _refuse_special_tokens(tokenizer: PreTrainedTokenizerBase, name: str, text: str) -> None:
    if holds_special_token(tokenizer, text):
        raise ValueError(f"the {name} spells a special token of the model; write it otherwise")


def answer_all(
    assistant: Assistant,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    *,
    base: bool = False,
) -> list[Answer]:
    """The answers in the order of the prompts; greedy ones are those of the evaluation."""
    options = {
        "max_new_tokens": max_new_tokens,
        "batch_tokens": BATCH_TOKENS,
        "progress": len(prompts) > 1,
    }
    with assistant.speaking(base) as model:
        if sampling.is_greedy:
            return answer_prompts(model, assistant.tokenizer, prompts, **options)
        return sample_prompts(model, assistant.tokenizer, prompts, sampling, **options)
