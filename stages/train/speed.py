"""What makes steps faster and changes no result; chosen once, after the model is loaded."""

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from finetune import last_layer
from finetune.heads import LossHead
from finetune.memory import layers_of
from finetune.params import Params
from stages.train.fitting import Budget
from stages.train.steps import Plan

# Below this share of supervised tokens the last layer's feed-forward part is cut down.
FEW = 0.5
# A pass over more tokens than this keeps the device busy for longer than launching it takes.
LARGEST_RECORDED = 6144
# Layers, the last and others, in training and evaluation, flat and stacked: each is a graph.
GRAPHS = 64
# Recorded passes keep their memory, beside what evaluation takes.
ROOM_FOR_GRAPHS = 1.5


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


def compile_layers(model: PeftModel, params: Params) -> None:
    """Compile each decoder layer by itself, once for all lengths.

    They share their code, so two are compiled (the last, and one for the rest) instead of 32, and
    nothing when a length is new. The first would be a third one if its input needed no gradient;
    that gradient takes a thousandth of a step, and the compiler half a minute.
    """
    if not params.train.compile:
        return
    torch._dynamo.config.recompile_limit = GRAPHS
    # What `low_rank` remembers between two layers is forgotten after the second, in any pass.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    model.get_base_model().enable_input_require_grads()
    for layer in layers_of(model):
        layer.compile(dynamic=True)
    head = model.get_output_embeddings()
    if isinstance(head, LossHead):
        head.compile()
