"""The decoder layers of a model: what checkpointing, compilation and shares of weights go by."""

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers, in order."""
    return [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
