"""Greedy answers, in left-padded batches of prompts of similar length under a token budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from finetune.flat.attention import takes_flat
from finetune.text.templates import stop_ids

PAD = 0  # any token: what is padded is masked by position


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
    answers: dict[int, Answer] = {}
    with tqdm(total=len(prompts), unit="answer", desc="generate", disable=not progress) as bar:
        for rows in batches_by_length([len(p) for p in prompts], max_new_tokens, batch_tokens):
            batch = Batch.align(model, [prompts[row] for row in rows])
            batch.read(model)
            written = batch.answer(model, tokenizer, max_new_tokens)
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
    """
    rows = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    while rows:
        size = max(1, batch_tokens // (lengths[rows[0]] + room))
        yield rows[:size]
        rows = rows[size:]


@dataclass(frozen=True)
class Batch:
    """Prompts that end in the same column, and the keys and values of what was read of them.

    `ids` and `mask` (0 where padded) are int64 [rows, columns]; the prompts end before column
    `width`, what follows a prompt (its true answer) is padded on the right.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    width: int
    cache: DynamicCache

    @classmethod
    def align(
        cls,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        following: Sequence[Sequence[int]] | None = None,
    ) -> "Batch":
        """Lay prompts, and what follows each, into columns on the model's device."""
        following = following or [()] * len(prompts)
        width, room = max(map(len, prompts)), max(map(len, following))
        ids, mask = torch.full((2, len(prompts), width + room), PAD).unbind()
        for row, (prompt, rest) in enumerate(zip(prompts, following, strict=True)):
            columns = slice(width - len(prompt), width + len(rest))
            ids[row, columns] = torch.tensor([*prompt, *rest])
            mask[row, columns] = 1
        device = model.get_input_embeddings().weight.device
        return cls(ids.to(device), mask.to(device), width, DynamicCache(config=model.config))

    def inputs(self, start: int, end: int, cache: DynamicCache) -> dict:
        """The model's arguments for the columns [start, end); those before are in `cache`."""
        positions = (self.mask[:, :end].cumsum(1) - 1).clamp(min=0)
        return {
            "input_ids": self.ids[:, start:end],
            "attention_mask": self.mask[:, :end],
            "position_ids": positions[:, start:end],
            "past_key_values": cache,
        }

    @torch.inference_mode()
    def read(self, model: PreTrainedModel) -> None:
        """Put all but the prompts' last tokens, whose predictions nobody needs, into the cache."""
        if self.width > 1:
            inputs = self.inputs(0, self.width - 1, self.cache)
            model(**inputs, use_cache=True, logits_to_keep=1)

    @torch.inference_mode()
    def answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
    ) -> list[Answer]:
        """Each prompt's most likely next token, again and again until it ends or is too long.

        Rows that have ended leave the batch once they are a quarter of it, where the cache's
        layers can give rows up: what is left costs what it would alone.
        """
        stops = torch.tensor(stop_tokens(model, tokenizer), device=self.ids.device)
        token, mask = self.ids[:, self.width - 1 : self.width], self.mask[:, : self.width]
        written: list[list[int]] = [[] for _ in token]
        rows, ended = list(range(len(token))), torch.zeros_like(token[:, 0], dtype=torch.bool)
        for _ in range(max_new_tokens):
            position = mask.sum(1, keepdim=True) - 1
            inputs = {"input_ids": token, "attention_mask": mask, "position_ids": position}
            output = model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
            token = output.logits.argmax(-1)
            for row, new in zip(rows, token[:, 0].tolist(), strict=True):
                written[row].append(new)
            ended |= torch.isin(token[:, 0], stops)
            if ended.all():
                break
            if ended.sum() * 4 >= len(rows) and _gives_rows_up(self.cache):
                kept = (~ended).nonzero()[:, 0]
                self.cache.batch_select_indices(kept)
                token, mask, ended = token[kept], mask[kept], ended[kept]
                rows = [rows[at] for at in kept.tolist()]
            mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        return [_until_stop(row, stops.tolist(), tokenizer) for row in written]


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
