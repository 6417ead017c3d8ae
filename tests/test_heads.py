"""A head that returns losses: the same losses and gradients as a cross-entropy over all logits."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from finetune.flat import heads
from finetune.flat.heads import LossHead, install, linear_nll


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Three rows of a vocabulary of 50 at a time."""
    monkeypatch.setattr(heads, "PIECE", 150)


def data(rows: int = 10, words: int = 50, size: int = 8) -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, size, generator=made)
    weight = torch.randn(words, size, generator=made)
    return hidden, weight, torch.randint(words, (rows,), generator=made)


def test_losses_and_gradients_equal_those_of_a_cross_entropy_over_all_logits():
    hidden, weight, targets = data()
    outer = torch.rand(len(hidden), generator=torch.Generator().manual_seed(2))
    ours, plain = (hidden.clone().requires_grad_() for _ in range(2))
    losses = linear_nll(ours, weight, targets)
    (losses * outer).sum().backward()
    expected = cross_entropy(plain @ weight.T, targets, reduction="none")
    (expected * outer).sum().backward()
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-6, atol=1e-6)


def test_a_target_below_zero_costs_nothing_and_moves_nothing():
    hidden, weight, targets = data()
    targets[[0, 4]] = -100
    hidden.requires_grad_()
    losses = linear_nll(hidden, weight, targets)
    losses.sum().backward()
    assert losses[[0, 4]].tolist() == [0, 0]
    assert not hidden.grad[[0, 4]].any()
    assert hidden.grad[1].any()


def test_no_gradient_is_made_where_none_is_wanted():
    hidden, weight, targets = data()
    with torch.no_grad():
        assert not linear_nll(hidden, weight, targets).requires_grad


def test_a_model_keeps_its_logits_and_its_parameter_names(tiny_weights):
    model = tiny(tiny_weights)
    names = list(model.state_dict())
    ids = torch.arange(6)[None]
    logits = model(input_ids=ids).logits
    assert install(model)
    assert isinstance(model.get_output_embeddings(), LossHead)
    assert list(model.state_dict()) == names
    assert torch.equal(model(input_ids=ids).logits, logits)


def test_inside_asked_for_a_model_returns_losses(tiny_weights):
    model = tiny(tiny_weights)
    ids = torch.arange(6)[None]
    targets = torch.tensor([1, 2, 3, 4, 5, 0])
    expected = cross_entropy(model(input_ids=ids).logits[0], targets, reduction="none")
    install(model)
    with model.get_output_embeddings().asked_for(targets):
        losses = model(input_ids=ids).logits
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    picked = torch.tensor([0, 0]), torch.tensor([4, 1])
    with model.get_output_embeddings().asked_for(targets[[4, 1]], picked):
        losses = model(input_ids=ids).logits
    torch.testing.assert_close(losses, expected[[4, 1]], rtol=1e-5, atol=1e-5)


def test_a_model_that_scales_its_logits_keeps_its_own_head(tiny_weights):
    model = tiny(tiny_weights)
    plain = model.forward

    def scaled(**inputs):
        output = plain(**inputs)
        output.logits = output.logits * 0.5
        return output

    model.forward = scaled
    assert not install(model)
    assert type(model.get_output_embeddings()) is nn.Linear


def test_a_head_that_is_trained_stays(tiny_weights):
    model = tiny(tiny_weights)
    model.get_output_embeddings().weight.requires_grad_(True)
    assert not install(model)


def tiny(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
