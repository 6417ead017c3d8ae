"""Products made once for all that read a tensor are those that peft makes for each layer."""

from dataclasses import replace

import pytest
import torch
from transformers import MistralConfig
from transformers.models.auto import AutoModelForCausalLM

from finetune.model.load import add_lora
from finetune.model.memory import recompute_layers
from finetune.params import Lora
from stages.train.fast import low_rank
from stages.train.fast.compiling import compile_layers
from tests.conftest import SIZES

LORA = Lora(
    r=4,
    alpha=8,
    dropout=0.0,
    target_modules="all-linear",
    bias="none",
    use_rslora=False,
    exclude_modules=None,
    use_dora=False,
    init_lora_weights="default",
    modules_to_save=None,
)


def _model(attention_dropout: float = 0.0, **changes: object):
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, attention_dropout=attention_dropout)
    base = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    model = add_lora(base, replace(LORA, **changes), seed=0)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.3)
    return model.double().train()  # so that what differs is no rounding


def _gradients(model) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(2)
    ids = torch.randint(1, 50, (2, 9))
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad
    }


def _compare(found, expected) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        assert (gradient - expected[1][name]).norm() < 1e-5 * expected[1][name].norm(), name


def test_layers_that_read_the_same_tensor_are_found_together():
    model = _model()
    names_of = {module: name.rpartition(".")[2] for name, module in model.named_modules()}
    groups = low_rank.readers(model)
    names = [[names_of[layer] for layer in group] for group in groups[:4]]
    attention, feed_forward = ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]
    assert names == [attention, ["o_proj"], feed_forward, ["down_proj"]]
    assert len(groups) == 8


@pytest.mark.parametrize(
    "changes",
    [{}, {"target_modules": ["q_proj", "v_proj", "up_proj"]}, {"use_rslora": True}],
    ids=["all layers", "some layers", "another scale"],
)
@pytest.mark.parametrize("recomputed", [False, True])
def test_losses_and_gradients_are_those_of_peft(changes, recomputed):
    model = _model(**changes)
    if recomputed:
        recompute_layers(model)
    expected = _gradients(model)
    low_rank.install(model)
    _compare(_gradients(model), expected)


@pytest.mark.extended
@pytest.mark.parametrize("recomputed", [False, True])
def test_compiled_whole_and_recomputed_or_not(monkeypatch, recomputed):
    expected = _gradients(_model())
    model = _model()
    low_rank.install(model)
    whole = {"backend": "aot_eager", "fullgraph": True}
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what, **more: plain(what, **whole | more))
    compile_layers(model)
    if recomputed:
        recompute_layers(model)
    _compare(_gradients(model), expected)


@pytest.mark.parametrize("recomputed", [False, True])
def test_with_dropout_each_layer_drops_its_own(recomputed):
    model = _model(dropout=0.5)
    expected = _gradients(model)
    low_rank.install(model)
    if recomputed:
        recompute_layers(model)
    _compare(_gradients(model), expected)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_what_is_recomputed_drops_the_same(rate):
    model = _model(**{rate: 0.5})
    expected = _gradients(model)
    recompute_layers(model)
    _compare(_gradients(model), expected)


def test_a_disabled_adapter_adds_nothing_and_no_tensor_is_kept():
    model = _model()
    low_rank.install(model)
    ids = torch.arange(1, 6)[None]
    with model.disable_adapter():
        plain = model(input_ids=ids).logits
    assert not torch.allclose(model(input_ids=ids).logits, plain)
    parts = [m.lora_variant["default"] for m in model.modules() if hasattr(m, "lora_variant")]
    assert all(part._product._input is None for part in parts)
