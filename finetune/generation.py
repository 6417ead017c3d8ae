"""Greedy answers, in batches of prompts of similar length under a token budget.

What all prompts of a batch begin with, such as an instruction, is read once for all of them.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix

import torch
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from finetune.captured import CapturedSteps, NotCapturable, rounded_up, why_not
from finetune.flat.attention import takes_flat
from finetune.model.probe import agree, make_examples, tried
from finetune.text.templates import stop_ids

PAD = 0  # any token: what is padded is masked by position
# A step of decoding waits for memory, reading computes: one takes as long as so many columns.
COLUMNS_A_STEP = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its text, its tokens without the end token, and how it stopped.

    `ended` is true where the model wrote an end token itself, within the tokens allowed.
    """

    text: str
    tokens: int
    ended: bool


def answer_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    progress: bool = True,
) -> list[Answer]:
    """Answer every prompt (token ids, already rendered), in the order given.

    Greedy, whatever sampling the model's own generation settings ask for. `batch_tokens` bounds a
    batch's padded prompts and answers together; the answers do not depend on it: in float32 they
    are the same token for token (in bfloat16 rounding may turn a near tie). Takes a base model or
    a PeftModel, and leaves it in evaluation mode.
    """
    prepare(model)
    writer = Writer(model, tokenizer, max_new_tokens)
    answers: dict[int, Answer] = {}
    with tqdm(total=len(prompts), unit="answer", desc="generate", disable=not progress) as bar:
        for rows in batches_by_length([len(p) for p in prompts], max_new_tokens, batch_tokens):
            batch = Batch.align(model, [prompts[row] for row in rows])
            batch.read(model)
            written = writer.answer(batch)
            answers |= dict(zip(rows, written, strict=True))
            bar.update(len(rows))
    return [answers[row] for row in range(len(prompts))]


def prepare(model: PreTrainedModel) -> bool:
    """Put the model, or the one under a PeftModel, into evaluation mode.

    Says whether it takes flat batches.
    """
    model.eval()
    return takes_flat(getattr(model, "get_base_model", lambda: model)())


def batches_by_length(lengths: Sequence[int], room: int, batch_tokens: int) -> Iterator[list[int]]:
    """Cut the rows, longest first, into batches of at most `batch_tokens`, padding included.

    Each row takes the longest's length and `room` for what follows it. Longest first, so that a
    batch that does not fit into memory fails at the start. A row above the budget stands alone.
    Of all such cuts this is the cheapest: padding costs its columns, a batch `room` steps.
    """
    rows = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    costs, starts = [0], [0]  # of the first rows: what they cost, where their last batch starts
    for end in range(1, len(rows) + 1):
        cost, start = math.inf, end
        for first in range(end - 1, -1, -1):
            longest = lengths[rows[first]]
            if end - first > 1 and (end - first) * (longest + room) > batch_tokens:
                break
            here = costs[first] + (end - first) * longest + room * COLUMNS_A_STEP
            cost, start = min((cost, start), (here, first))
        costs.append(cost)
        starts.append(start)
    bounds = [len(rows)]
    while bounds[-1]:
        bounds.append(starts[bounds[-1]])
    for start, end in pairwise(reversed(bounds)):
        yield rows[start:end]


@dataclass(frozen=True)
class Batch:
    """Prompts that end in the same column, and the keys and values of what was read of them.

    `ids` and `mask` (0 where padded) are int64 [rows, columns]. The first `shared` columns are the
    same in every row; a shorter prompt is padded behind them. All prompts end before column
    `width`; what follows a prompt (its true answer) is padded on the right.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    width: int
    shared: int
    cache: DynamicCache

    @classmethod
    def align(
        cls,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        following: Sequence[Sequence[int]] | None = None,
        most_shared: int | None = None,
    ) -> "Batch":
        """Lay prompts, and what follows each, into columns on the model's device.

        At most `most_shared` of their first tokens are taken as shared, and never a prompt's last.
        """
        following = following or [()] * len(prompts)
        cache = DynamicCache(config=model.config)
        most = min(map(len, prompts)) - 1
        most = most if most_shared is None else min(most, most_shared)
        shared = 0
        # Padding inside of a row is seen by what counts columns, such as a sliding window.
        if len(prompts) > 1 and why_not(model, cache) is None:
            shared = min(most, len(commonprefix([list(each) for each in prompts])))
        width, room = max(map(len, prompts)), max(map(len, following))
        ids, mask = torch.full((2, len(prompts), width + room), PAD).unbind()
        ids[:, :shared] = torch.tensor(prompts[0][:shared], dtype=torch.int64)
        mask[:, :shared] = 1
        for row, (prompt, rest) in enumerate(zip(prompts, following, strict=True)):
            columns = slice(width - len(prompt) + shared, width + len(rest))
            ids[row, columns] = torch.tensor([*prompt[shared:], *rest])
            mask[row, columns] = 1
        device = model.get_input_embeddings().weight.device
        return cls(ids.to(device), mask.to(device), width, shared, cache)

    def inputs(self, start: int, end: int, cache: DynamicCache) -> dict:
        """The model's arguments for the columns [start, end); those before are in `cache`."""
        positions = (self.mask[:, :end].cumsum(1) - 1).clamp(min=0)
        return {
            "input_ids": self.ids[:, start:end],
            "attention_mask": self.mask[:, :end],
            "position_ids": positions[:, start:end],
            "past_key_values": cache,
        }

    def last(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The last token of each prompt [rows, 1], and the mask [rows, width] that counts it."""
        return self.ids[:, self.width - 1 : self.width], self.mask[:, : self.width]

    @torch.inference_mode()
    def read_shared(self, model: PreTrainedModel) -> None:
        """Put what the prompts share into the cache, read in one row for all."""
        if self.shared:
            inputs = self.inputs(0, self.shared, self.cache)
            rows = ("input_ids", "attention_mask", "position_ids")
            inputs |= {name: inputs[name][:1] for name in rows}
            model(**inputs, use_cache=True, logits_to_keep=1)
            self.cache.batch_repeat_interleave(len(self.ids))

    @torch.inference_mode()
    def read(self, model: PreTrainedModel) -> None:
        """Put all but the prompts' last tokens, whose predictions nobody needs, into the cache."""
        self.read_shared(model)
        if self.width - 1 > self.shared:
            inputs = self.inputs(self.shared, self.width - 1, self.cache)
            model(**inputs, use_cache=True, logits_to_keep=1)


class Writer:
    """Continues batches whose prompts were read, each row with its most likely tokens.

    On a GPU the steps are replayed from a CUDA graph (`finetune/captured.py`) where the model
    allows it, which two short prompts are asked first; otherwise they are launched.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        fixed: bool | None = None,
    ) -> None:
        """`fixed` memory is for GPUs unless it is said; on a CPU its steps are launched."""
        self._model, self._tokenizer, self._most = model, tokenizer, max_new_tokens
        self._stops = stop_tokens(model, tokenizer)
        self._steps: CapturedSteps | None = None
        self._cuda = model.get_input_embeddings().weight.device.type == "cuda"
        self.fixed = (self._cuda if fixed is None else fixed) and self._fixed_gives_the_same()

    def answer(self, batch: "Batch") -> list[Answer]:
        """The answer of each row of `batch`, whose prompts are in its cache."""
        written = self._replay(batch) if self.fixed else None
        if written is None:
            written = self._launch(batch)
        return [_until_stop(row, self._stops, self._tokenizer) for row in written]

    @torch.inference_mode()
    def _replay(self, batch: "Batch") -> list[list[int]] | None:
        """From a graph; None where there can be none."""
        rows, needed = len(batch.ids), batch.width - 1 + self._most
        if batch.width == 1:
            return None  # nothing was read: the layers of the cache have no shape yet
        if self._steps is None or rows > self._steps.rows or needed > self._steps.columns:
            self._steps = None  # gives its memory back
            shape = (rounded_up(rows), rounded_up(needed))
            try:
                self._steps = CapturedSteps(
                    self._model, batch.cache, shape, self._stops, captured=self._cuda
                )
            except NotCapturable as error:
                log.info(f"steps of generation are launched by the host, not replayed: {error}")
                self.fixed = False
                return None
        return self._steps.run(batch.cache, *batch.last(), self._most)

    @torch.inference_mode()
    def _fixed_gives_the_same(self) -> bool:
        """Whether a step in fixed memory gives two short prompts the logits of a launched one."""
        base = getattr(self._model, "get_base_model", lambda: self._model)()
        batch = Batch.align(self._model, [each.input_ids for each in make_examples(base)])
        batch.read(self._model)
        if reason := why_not(base, batch.cache):
            log.info(f"steps of generation are launched by the host, not replayed: {reason}")
            return False
        token, mask = batch.last()
        shape = (len(token) + 1, 2 * batch.width)
        steps = CapturedSteps(self._model, batch.cache, shape, self._stops, captured=False)
        found = tried(self._model, lambda: steps.first_logits(batch.cache, token, mask))
        launched = _step(self._model, token, mask, batch.cache)[:, -1]
        same = found is not None and agree(launched, found, launched.dtype)
        if not same:
            log.info("steps of generation are launched by the host: in fixed memory they differ")
        return same

    @torch.inference_mode()
    def _launch(self, batch: "Batch") -> list[list[int]]:
        """Rows that have ended leave the batch once they are a quarter of it, where the cache's
        layers can give rows up: what is left costs what it would alone.
        """
        stops = torch.tensor(self._stops, device=batch.ids.device)
        token, mask = batch.last()
        written: list[list[int]] = [[] for _ in token]
        rows, ended = list(range(len(token))), torch.zeros_like(token[:, 0], dtype=torch.bool)
        for _ in range(self._most):
            token = _step(self._model, token, mask, batch.cache).argmax(-1)
            for row, new in zip(rows, token[:, 0].tolist(), strict=True):
                written[row].append(new)
            ended |= torch.isin(token[:, 0], stops)
            if ended.all():
                break
            if ended.sum() * 4 >= len(rows) and _gives_rows_up(batch.cache):
                kept = (~ended).nonzero()[:, 0]
                batch.cache.batch_select_indices(kept)
                token, mask, ended = token[kept], mask[kept], ended[kept]
                rows = [rows[at] for at in kept.tolist()]
            mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        return written


def _step(
    model: PreTrainedModel, token: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """The logits [rows, 1, words] behind `token`, which `mask` counts and `cache` takes up."""
    position = mask.sum(1, keepdim=True) - 1
    inputs = {"input_ids": token, "attention_mask": mask, "position_ids": position}
    return model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits


def _gives_rows_up(cache: DynamicCache) -> bool:
    """Whether all that it holds of a row are keys and values; recurrent states stay as they are."""
    return {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end tokens: the tokenizer's, its chat template's, and those of the model's generation
    settings; sorted.

    Chat models have several, for example one for the end of a turn.
    """
    stops = model.generation_config.eos_token_id
    stops = set(stops if isinstance(stops, list) else [stops]) | set(stop_ids(tokenizer))
    return sorted(stops - {None})


def _until_stop(written: list[int], stops: list[int], tokenizer: PreTrainedTokenizerBase) -> Answer:
    end = next((at for at, token in enumerate(written) if token in stops), None)
    text = tokenizer.decode(written[:end], skip_special_tokens=True).strip()
    return Answer(text, len(written[:end]), end is not None)
