"""Loss and answer of each question, for the price of reading the question once.

Reading the questions is most of the work of an evaluation. What was read is kept (keys and
values), the true answer is scored on a copy of it, and the model's own answer continues from it.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from finetune.generation import Answer, Batch, Writer, batches_by_length, prepare
from finetune.params import Evaluate
from finetune.text.tokens import Example
from stages.evaluate.questions import Question


def score_and_answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    settings: Evaluate,
) -> list[tuple[float, Answer]]:
    """Each question's loss, as `row_losses` gives it, and the model's own answer, in order."""
    prepare(model)
    prompts = [question.prompt() for question in questions]
    lengths = [len(prompt) for prompt in prompts]
    longest_answer = max(len(q.row.input_ids) - n for q, n in zip(questions, lengths, strict=True))
    room = max(settings.max_new_tokens, longest_answer)
    writer = Writer(model, tokenizer, settings.max_new_tokens)
    found: dict[int, tuple[float, Answer]] = {}
    with tqdm(total=len(questions), unit="question", desc="evaluate") as bar:
        for group in batches_by_length(lengths, room, settings.micro_batch_tokens):
            rows = [questions[at].row for at in group]
            following = [row.input_ids[lengths[at] :] for at, row in zip(group, rows, strict=True)]
            # What is shared predicts nothing that counts: it is read in one row for all.
            unscored = max(0, min(int(row.spans[0]) for row in rows) - 1)
            batch = Batch.align(model, [prompts[at] for at in group], following, unscored)
            losses = _score(model, batch, rows)
            answers = writer.answer(batch)
            found |= dict(zip(group, zip(losses, answers, strict=True), strict=True))
            bar.update(len(group))
    return [found[at] for at in range(len(questions))]


@torch.inference_mode()
def _score(model: PreTrainedModel, batch: Batch, rows: Sequence[Example]) -> list[float]:
    """Read the prompts into the batch's cache, and the true answers into a copy of it."""
    read = batch.width - 1  # a prompt's last token predicts the answer's first
    losses = torch.zeros(len(rows), dtype=torch.float64)
    batch.read_shared(model)
    if read > batch.shared:
        _read(model, batch, rows, (batch.shared, read), batch.cache, losses)
    _read(model, batch, rows, (read, batch.ids.shape[1] - 1), deepcopy(batch.cache), losses)
    return losses.tolist()


def _read(
    model: PreTrainedModel,
    batch: Batch,
    rows: Sequence[Example],
    columns: tuple[int, int],
    cache: DynamicCache,
    losses: torch.Tensor,
) -> None:
    """Read the columns [start, end) into `cache`; add what they predict to the rows' losses."""
    owners, targets, predicting = _supervised(batch, rows, *columns)
    # Some position must be kept: to transformers none means all of them.
    kept, at = torch.tensor(predicting or [0]).unique(return_inverse=True)
    inputs = batch.inputs(*columns, cache) | {"logits_to_keep": kept.to(batch.ids.device)}
    logits = model(**inputs, use_cache=True).logits
    chosen = logits[owners, at[: len(owners)].tolist()].float()
    wanted = torch.tensor(targets, dtype=torch.int64, device=chosen.device)
    nll = cross_entropy(chosen, wanted, reduction="none").double().cpu()
    losses.index_add_(0, torch.tensor(owners, dtype=torch.int64), nll)


def _supervised(
    batch: Batch, rows: Sequence[Example], start: int, end: int
) -> tuple[list[int], list[int], list[int]]:
    """The supervised tokens that the columns [start, end) predict: row, token, column - start."""
    found = [
        (owner, int(row.input_ids[position]), int(position) + shift - 1 - start)
        for owner, row in enumerate(rows)
        for shift in [batch.width - int(row.spans[-2])]
        for position in row.supervised()
        if start < position + shift <= end
    ]
    owners, targets, columns = zip(*found, strict=True) if found else ((), (), ())
    return list(owners), list(targets), list(columns)
