"""Answers token by token: greedy or drawn with a seed, of one prompt as a stream or of many."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from tokenizers.decoders import DecodeStream
from tqdm import tqdm
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from finetune.generation import Answer, Batch, batches_by_length, stop_tokens


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken: the most likely one at temperature 0, else one that is drawn.

    `top_k` keeps that many of the most likely tokens (0: all), `top_p` the fewest whose
    probabilities together reach it. The same seed draws the same answer to a question, whichever
    others are asked with it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def warpers(self) -> LogitsProcessorList:
        """What shapes the distribution, in the order that transformers applies it."""
        found = LogitsProcessorList([TemperatureLogitsWarper(self.temperature)])
        if self.top_k:
            found.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            found.append(TopPLogitsWarper(self.top_p))
        return found


GREEDY = Sampling()


class Stream:
    """One answer as it is written: iterate over the pieces of its text.

    `tokens` counts those written without the end token; `ended` says whether the model wrote one
    itself, or one of the texts `stops`, which is not shown. Both are known when the iteration ends.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        sampling: Sampling,
        max_new_tokens: int,
        stops: Sequence[str] = (),
    ) -> None:
        self._ids = _write(model, Batch.align(model, [prompt]), sampling)
        self._ends, self._stops = set(stop_tokens(model, tokenizer)), stops
        self._tokenizer, self._limit = tokenizer, max_new_tokens
        self.tokens, self.ended = 0, False

    def __iter__(self) -> Iterator[str]:
        """What may be the beginning of a stop is held back until it is none."""
        held, longest = "", max(map(len, self._stops), default=1)
        for piece in self._pieces():
            held += piece
            places = [place for stop in self._stops if (place := held.find(stop)) >= 0]
            shown = min(places) if places else max(0, len(held) - longest + 1)
            if shown:
                yield held[:shown]
            if places:
                self.ended = True
                return
            held = held[shown:]
        if held:
            yield held

    def _pieces(self) -> Iterator[str]:
        """Pieces of whole characters; at the end what is left of one, as decoding shows it."""
        decoder, shown, written = DecodeStream(skip_special_tokens=True), "", []
        with closing(self._ids):
            while self.tokens < self._limit:
                token = int(next(self._ids))
                if token in self._ends:
                    self.ended = True
                    break
                self.tokens += 1
                written.append(token)
                if piece := decoder.step(self._tokenizer.backend_tokenizer, token):
                    shown += piece
                    yield piece
        whole = self._tokenizer.decode(written, skip_special_tokens=True)
        if whole.startswith(shown) and whole != shown:
            yield whole[len(shown) :]


def stripped(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces without the white space at the beginning and at the end of the whole."""
    begun, held = False, ""
    for piece in pieces:
        held += piece
        text = held.rstrip() if begun else held.strip()
        if text:
            held = held[len(held.rstrip()) :]
            begun = True
            yield text


def sample_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_new_tokens: int,
    batch_tokens: int,
    progress: bool,
) -> list[Answer]:
    """A drawn answer to every prompt, in the order given; as `generation.answer_prompts`."""
    answers: dict[int, Answer] = {}
    stops = set(stop_tokens(model, tokenizer))
    with tqdm(total=len(prompts), unit="answer", desc="generate", disable=not progress) as bar:
        for rows in batches_by_length([len(p) for p in prompts], max_new_tokens, batch_tokens):
            written: list[list[int]] = [[] for _ in rows]
            open_rows = set(range(len(rows)))
            steps = _write(model, Batch.align(model, [prompts[row] for row in rows]), sampling)
            while open_rows and len(written[min(open_rows)]) < max_new_tokens:
                for row, token in enumerate(next(steps).flatten().tolist()):
                    if row in open_rows and token in stops:
                        open_rows.remove(row)
                    elif row in open_rows:
                        written[row].append(token)
            for place, row in enumerate(rows):
                text = tokenizer.decode(written[place], skip_special_tokens=True).strip()
                answers[row] = Answer(text, len(written[place]), place not in open_rows)
            bar.update(len(rows))
    return [answers[row] for row in range(len(prompts))]


@torch.inference_mode()
def _write(model: PreTrainedModel, batch: Batch, sampling: Sampling) -> Iterator[torch.Tensor]:
    """The next token of each row, int64 [rows, 1], step after step, without end."""
    batch.read(model)
    warpers = None if sampling.is_greedy else sampling.warpers()
    draws = [_generator(batch.ids.device, sampling.seed) for _ in batch.ids]
    token, mask = batch.ids[:, batch.width - 1 : batch.width], batch.mask[:, : batch.width]
    position = mask.sum(1, keepdim=True) - 1
    while True:
        inputs = {"input_ids": token, "attention_mask": mask, "position_ids": position}
        output = model(**inputs, past_key_values=batch.cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[:, -1]
        if warpers is None:
            token = logits.argmax(-1, keepdim=True)
        else:
            shares = warpers(token, logits.float()).softmax(-1)
            drawn = [
                torch.multinomial(share, 1, generator=draw)
                for share, draw in zip(shares, draws, strict=True)
            ]
            token = torch.stack(drawn)
        yield token
        mask, position = torch.cat([mask, torch.ones_like(token)], dim=1), position + 1


def _generator(device: torch.device, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
