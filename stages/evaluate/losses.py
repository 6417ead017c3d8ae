"""The loss of each row on its supervised tokens."""

from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from finetune.flat.batches import collate_flat, collate_padded, fill
from finetune.flat.losses import token_nll
from finetune.generation import prepare
from finetune.text.tokens import Example


@torch.inference_mode()
def row_losses(model: PreTrainedModel, rows: Sequence[Example], batch_tokens: int) -> list[float]:
    """Each row's negative log likelihood in nats, summed over its supervised tokens.

    In batches of at most `batch_tokens` tokens, on which the result does not depend. Logits exist
    for one batch at a time, and there for supervised positions only.
    """
    flat, device = prepare(model), model.get_input_embeddings().weight.device
    losses = torch.zeros(len(rows), dtype=torch.float64)
    with tqdm(total=len(rows), unit="row", desc="loss") as bar:
        for group in fill([len(row.input_ids) for row in rows], batch_tokens, padded=not flat):
            batch = (collate_flat if flat else collate_padded)([rows[at] for at in group])
            token_losses = token_nll(model, batch.to(device)).double().cpu()
            losses.index_add_(0, torch.tensor(group)[batch.owners], token_losses)
            bar.update(len(group))
    return losses.tolist()
