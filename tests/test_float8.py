"""Float8 products beside bfloat16 ones, with the arithmetic of the device emulated on a CPU."""

import copy

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from finetune.model.load import add_lora
from finetune.params import Lora
from stages.train.fast import float8, low_rank

LORA = Lora(
    r=8,
    alpha=16.0,
    dropout=0.0,
    target_modules="all-linear",
    bias="none",
    use_rslora=False,
    exclude_modules=None,
    use_dora=False,
    init_lora_weights="default",
    modules_to_save=None,
)


@pytest.fixture
def models():
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None,
    )
    model = MistralForCausalLM(config).to(torch.bfloat16).requires_grad_(False)
    plain = add_lora(model, LORA, seed=1)
    for name, parameter in plain.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    fast = copy.deepcopy(plain)
    low_rank.install(plain)
    assert float8.install(fast) == 14
    return plain, fast


def run(model, training=True):
    ids = torch.arange(90).reshape(2, 45)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train(training)(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_losses_and_gradients_are_those_of_bfloat16_but_for_rounding(models):
    (loss, gradients), (other, others) = run(models[0]), run(models[1])
    assert other == pytest.approx(loss, abs=0.01)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert others[name].dtype == gradient.dtype == torch.float32
        assert torch.cosine_similarity(gradient.ravel(), others[name].ravel(), dim=0) > 0.98, name


def test_evaluation_is_not_in_float8(models):
    assert run(models[0], training=False)[0] == run(models[1], training=False)[0]


def test_the_adapter_has_the_same_names(models):
    assert [n for n, _ in models[0].named_parameters()] == [
        n for n, _ in models[1].named_parameters()
    ]


def test_rounded_rows_are_within_a_sixteenth():
    x = torch.randn(50, 64) * torch.logspace(-6, 6, 50)[:, None]
    rounded, scale = float8.round_rows(x)
    assert (rounded.float() * scale - x).abs().amax(1).le(x.abs().amax(1) / 16).all()
    zeros, scale = float8.round_rows(torch.zeros(2, 16))
    assert (zeros.float() * scale == 0).all()


def test_a_layer_that_does_not_fit_is_left_as_it_is():
    config = MistralConfig(
        vocab_size=96,
        hidden_size=72,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        sliding_window=None,
    )
    model = add_lora(MistralForCausalLM(config).requires_grad_(False), LORA, seed=1)
    assert float8.install(model) == 0
