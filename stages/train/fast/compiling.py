"""Each decoder layer compiled by itself, once for all lengths."""

import time

import torch
from peft import PeftModel
from torch import nn
from torch._inductor.async_compile import AsyncCompile, get_compile_threads

from finetune.flat.heads import LossHead, find_head
from finetune.model.layers import layers_of

# Layers, the last and others, in training and evaluation, flat and stacked: each is a graph.
GRAPHS = 64
LONGEST_START = 60  # seconds to wait for the compiler's helpers


def start_compiler() -> None:
    """Start the compiler's helper processes, while there is nothing else to wait for.

    They take seconds to start, and until they have, the compiler makes each kernel by itself, one
    after the other; also those that an earlier run has left in the cache.
    """
    if _has_helpers():
        AsyncCompile.warm_pool()
        AsyncCompile.use_process_pool()


def _wait_for_helpers() -> None:
    deadline = time.monotonic() + LONGEST_START
    while _has_helpers() and not AsyncCompile.use_process_pool() and time.monotonic() < deadline:
        time.sleep(0.05)


def _has_helpers() -> bool:
    return torch.cuda.is_available() and get_compile_threads() > 1


def compile_layers(model: PeftModel) -> None:
    """Compile the decoder layers and the loss.

    The layers share their code, so two are compiled (the last, and one for the rest) instead of 32,
    and nothing when a length is new. The first would be a third one if its input needed no
    gradient; that gradient takes a thousandth of a step, and the compiler half a minute.
    """
    _wait_for_helpers()
    torch._dynamo.config.recompile_limit = GRAPHS
    # DDP would have a graph cut at its buckets. A layer is smaller than a bucket, and the cut fails
    # where a graph returns a number.
    torch._dynamo.config.optimize_ddp = False
    # Numbers such as the norms' epsilon are part of the code. As inputs of a graph they end a first
    # attempt to compile it, and everything is traced, and half of it compiled, a second time.
    torch._dynamo.config.specialize_float = True
    embeddings = model.get_base_model().get_input_embeddings()
    embeddings.register_forward_hook(_ask_for_gradient)
    for layer in layers_of(model):
        layer.forward = torch.compile(layer.forward, dynamic=True)
    head = find_head(model)
    if isinstance(head, LossHead):
        head.compile()


def _ask_for_gradient(embeddings: nn.Module, args: object, output: torch.Tensor) -> None:
    """In training alone: in evaluation the first layer would be a graph of its own for it."""
    if torch.is_grad_enabled():
        output.requires_grad_(True)
