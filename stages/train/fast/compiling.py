"""Each decoder layer compiled by itself, once for all lengths."""

import torch
from peft import PeftModel

from finetune.flat.heads import LossHead
from finetune.model.layers import layers_of

# Layers, the last and others, in training and evaluation, flat and stacked: each is a graph.
GRAPHS = 64


def start_compiler() -> None:
    """Compile something tiny, while there is nothing else to wait for.

    The compiler's helper processes take seconds to start, and until they have, it makes each kernel
    by itself, one after the other. By the time the weights are loaded, they are there.
    """
    if torch.cuda.is_available():
        torch.compile(lambda x: x + 1)(torch.zeros(8, device="cuda"))


def compile_layers(model: PeftModel) -> None:
    """Compile the decoder layers and the loss.

    The layers share their code, so two are compiled (the last, and one for the rest) instead of 32,
    and nothing when a length is new. The first would be a third one if its input needed no
    gradient; that gradient takes a thousandth of a step, and the compiler half a minute.
    """
    torch._dynamo.config.recompile_limit = GRAPHS
    model.get_base_model().enable_input_require_grads()
    for layer in layers_of(model):
        layer.forward = torch.compile(layer.forward, dynamic=True)
    head = model.get_output_embeddings()
    if isinstance(head, LossHead):
        head.compile()
