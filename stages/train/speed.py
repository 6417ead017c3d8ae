"""What makes steps faster and changes no result; chosen once, after the model is loaded."""

from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback

from finetune.flat.heads import LossHead
from finetune.model.layers import layers_of
from finetune.params import Params
from stages.train.fast import joint, last_layer
from stages.train.fitting import Budget
from stages.train.steps import Plan

# Below this share of supervised tokens the last layer's feed-forward part is cut down.
FEW = 0.5
# A pass over more tokens than this keeps the device busy for longer than launching it takes.
LARGEST_RECORDED = 6144
# Layers, the last and others, in training and evaluation, flat and stacked: each is a graph.
GRAPHS = 64
# Recorded passes keep their memory, beside what evaluation and a first pass take.
ROOM_FOR_GRAPHS = 1.2


def cut_last_layer(base: PreTrainedModel, plan: Plan) -> None:
    """Where few tokens are supervised, run the last feed-forward part for those only."""
    few = plan.supervised.sum() < FEW * plan.lengths.sum()
    plan.reads_few = bool(few) and last_layer.install(base)


def record_passes(plan: Plan, params: Params, budget: Budget, processes: int) -> None:
    """Where passes are small and memory is plenty, record them as CUDA graphs.

    Not for several processes: they exchange gradients in between.
    """
    mean = min(plan.lengths.mean() * plan.share, plan.budget)
    plenty = budget.available and ROOM_FOR_GRAPHS * budget.estimated < budget.available
    small = mean <= LARGEST_RECORDED and not plan.padded
    plan.recorded = bool(params.train.compile and processes == 1 and plenty and small)


def start_compiler(params: Params) -> None:
    """Compile something tiny, while there is nothing else to wait for.

    The compiler's helper processes take seconds to start, and until they have, it makes each kernel
    by itself, one after the other. By the time the weights are loaded, they are there.
    """
    if params.train.compile and torch.cuda.is_available():
        torch.compile(lambda x: x + 1)(torch.zeros(8, device="cuda"))


def compile_layers(model: PeftModel, params: Params) -> None:
    """Compile each decoder layer by itself, once for all lengths.

    They share their code, so two are compiled (the last, and one for the rest) instead of 32, and
    nothing when a length is new. The first would be a third one if its input needed no gradient;
    that gradient takes a thousandth of a step, and the compiler half a minute.
    """
    if not params.train.compile:
        return
    torch._dynamo.config.recompile_limit = GRAPHS
    # `joint` has one, a pure function: what was compiled for it may be kept for later runs.
    torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True
    model.get_base_model().enable_input_require_grads()
    for layer in layers_of(model):
        layer.forward = torch.compile(layer.forward, dynamic=True)
    head = model.get_output_embeddings()
    if isinstance(head, LossHead):
        head.compile()


class Refresh(TrainerCallback):
    """Keeps what `joint` has copied from the adapter up to date."""

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        joint.refresh(model)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, *, model: Any, **_: Any
    ) -> None:
        joint.refresh(model)
