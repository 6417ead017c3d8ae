"""Captured passes: which shapes get a graph, and what filling a batch up changes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from finetune.flat import attention
from finetune.flat.batches import collate_flat
from finetune.flat.losses import token_nll
from finetune.model.load import add_lora
from finetune.params import load
from stages.train.fast import last_layer
from stages.train.fast.graphs import Shapes, fill_up, token_step
from tests.conftest import ROOT, SIZES


def see(shapes: Shapes, shape: object) -> str:
    """What is done with a micro-batch of `shape`."""
    if shapes.find(shape):
        return "replayed"
    if not shapes.is_due(shape):
        return "launched"
    shapes.keep(shape, lambda: "graph")
    return "captured"


def test_a_shape_is_captured_at_its_second_sight():
    shapes = Shapes(limit=4)
    assert [see(shapes, "a") for _ in range(4)] == ["launched", "captured", "replayed", "replayed"]


def test_no_more_graphs_than_the_limit_and_the_least_used_goes_first():
    shapes = Shapes(limit=2)
    for shape in "aaaabb":
        see(shapes, shape)
    done = [see(shapes, "c") for _ in range(5)]
    assert done == ["launched", "launched", "launched", "captured", "replayed"]
    assert len(shapes) == 2 and see(shapes, "a") == "replayed" and see(shapes, "b") == "launched"


def test_shapes_in_turn_do_not_throw_each_other_out():
    shapes = Shapes(limit=2)
    done = [see(shapes, number % 3) for number in range(60)]
    assert done.count("captured") == 2 and done.count("replayed") > 30


def test_a_varied_corpus_has_few_shapes_and_little_is_added():
    drawn = np.random.default_rng(0).integers(1_000, 8_000, 1000)
    filled = {
        -(-int(tokens) // token_step(int(tokens))) * token_step(int(tokens)) for tokens in drawn
    }
    assert len(filled) < 60
    assert all(token_step(int(tokens)) <= tokens / 8 for tokens in drawn)


def example(seed: int, length: int, supervised: int) -> SimpleNamespace:
    ids = np.random.default_rng(seed).integers(1, SIZES["vocab_size"], length).astype(np.int32)
    at = np.arange(length - supervised, length)
    return SimpleNamespace(input_ids=ids, supervised=lambda: at)


EXAMPLES = [example(1, 9, 3), example(2, 30, 1), example(3, 2, 1)]


@pytest.fixture
def model():
    """A small model with an adapter that adds something."""
    attention.register()
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(MistralConfig(**SIZES), attn_implementation="flat")
    model = add_lora(base.requires_grad_(False), load(ROOT / "params.yaml").lora, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def gradients(model, batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = token_nll(model, batch).sum()
    loss.backward()
    trained = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), trained


def same(found, expected) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-6, name


def test_filling_up_changes_no_loss_and_no_gradient(model):
    batch = collate_flat(EXAMPLES)
    filled = fill_up(batch, longest=64)
    assert filled.inputs["input_ids"].shape[1] == 64 and len(filled.targets) == 64
    same(gradients(model, filled), gradients(model, batch))


@pytest.mark.parametrize("fill", [False, True])
def test_cutting_the_last_layer_changes_no_loss_and_no_gradient(model, fill):
    batch = collate_flat(EXAMPLES)
    expected = gradients(model, batch)
    seen = []
    assert last_layer.install(model.get_base_model())
    down = model.get_base_model().model.layers[-1].mlp.down_proj
    down.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    selected = last_layer.select(batch)
    same(gradients(model, fill_up(selected, longest=64) if fill else selected), expected)
    assert seen == [64 if fill else 5]
    same(gradients(model, batch), expected)  # without the argument nothing is cut


def test_products_of_a_float32_adapter_are_made_in_bfloat16_beside_such_a_model(model):
    """Without autocast peft would cast the whole input to float32, in silence."""
    model = model.to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    kinds = set()
    for name, module in model.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default")):
            module.register_forward_hook(lambda module, args, output: kinds.add(output.dtype))
    loss, trained = gradients(model, collate_flat(EXAMPLES))
    assert kinds == {torch.bfloat16}
    assert {gradient.dtype for gradient in trained.values()} == {torch.float32}
    assert loss.dtype == torch.float32
