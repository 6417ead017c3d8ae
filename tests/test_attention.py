"""A flat batch gives each example what it gets alone; misuse is refused; the rest is plain sdpa."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3NextConfig,
)
from transformers.models.auto import AutoModelForCausalLM
from transformers.utils import import_utils

from finetune.flat import attention
from finetune.flat.batches import collate_flat, collate_padded, collate_stacked
from finetune.flat.losses import token_nll
from finetune.model import probe
from finetune.text.tokens import Example
from tests.conftest import SIZES

LENGTHS = (9, 1, 17, 30, 4)


def _model(config, implementation=attention.NAME):
    attention.register()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=implementation)


def _rows(lengths=LENGTHS) -> list[Example]:
    torch.manual_seed(1)
    rows = []
    for number, length in enumerate(lengths):
        ids = torch.randint(1, 50, (length,), dtype=torch.int32).numpy()
        spans = [] if length == 1 else [length // 2, length]
        rows.append(
            Example(str(number), "law", ids, torch.tensor(spans, dtype=torch.int32).numpy())
        )
    return rows


def _gradients(model, batches) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    losses = torch.cat([token_nll(model, batch) for batch in batches])
    losses.sum().backward()
    return losses.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def _assert_same(found, expected) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    for name, gradient in found[1].items():
        difference = (gradient - expected[1][name]).norm() / expected[1][name].norm()
        assert difference < 1e-5, name


@pytest.fixture(params=["llama", "mistral with a window of 7"])
def model(request):
    if request.param == "llama":
        return _model(LlamaConfig(**SIZES))
    return _model(MistralConfig(**SIZES, sliding_window=7))


def test_flat_padded_and_one_at_a_time_give_the_same_losses_and_gradients(model):
    rows = _rows()
    alone = _gradients(model, [collate_padded([row]) for row in rows])
    for batches in (
        [collate_flat(rows)],
        [collate_flat(rows[:2]), collate_flat(rows[2:])],
        [collate_flat([row]) for row in rows],
        [collate_padded(rows)],
    ):
        _assert_same(_gradients(model, batches), alone)


@pytest.mark.parametrize("recording", [False, True], ids=["launched", "while a graph is recorded"])
def test_stacked_rows_give_the_same_losses_and_gradients(model, monkeypatch, recording):
    rows = _rows((12,) * 3)
    alone = _gradients(model, [collate_padded([row]) for row in rows])
    monkeypatch.setattr(import_utils, "is_cuda_stream_capturing", lambda: recording)
    _assert_same(_gradients(model, [collate_stacked(rows)]), alone)


def test_an_example_does_not_see_its_neighbours(model):
    rows = _rows()
    before = token_nll(model, collate_flat(rows))
    rows[2] = Example("2", "law", rows[2].input_ids[::-1].copy(), rows[2].spans)
    batch = collate_flat(rows)
    after = token_nll(model, batch)
    others = batch.owners != 2
    torch.testing.assert_close(after[others], before[others], rtol=0, atol=0)
    assert not torch.allclose(after[~others], before[~others])


def test_positions_that_restart_without_bounds_are_refused(model):
    inputs = collate_flat(_rows()).inputs
    for mask in (inputs["attention_mask"], None):
        with pytest.raises(ValueError, match="cu_seq_lens_q is missing"):
            model(
                input_ids=inputs["input_ids"],
                position_ids=inputs["position_ids"],
                attention_mask=mask,
                use_cache=False,
            )


def test_a_flat_batch_with_bounds_needs_no_mask(model):
    batch = collate_flat(_rows())
    inputs = {k: v for k, v in batch.inputs.items() if k != "attention_mask"}
    torch.testing.assert_close(model(**inputs).logits, model(**batch.inputs).logits)


def test_a_cache_beside_bounds_is_refused(model):
    first = model(input_ids=torch.ones(1, 4, dtype=torch.int64), use_cache=True)
    batch = collate_flat(_rows())
    with pytest.raises(ValueError, match="use_cache=False"):
        model(**batch.inputs, past_key_values=first.past_key_values, use_cache=True)


@pytest.mark.parametrize("window", [None, 7])
def test_left_padded_generation_is_that_of_sdpa(window):
    config = MistralConfig(**SIZES, sliding_window=window)
    flat, sdpa = _model(config), _model(config, "sdpa")
    ids = torch.tensor([[0, 0, 0, 5, 6], [7, 8, 9, 10, 11]])
    mask = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    options = {"max_new_tokens": 12, "do_sample": False}
    expected = sdpa.generate(ids, attention_mask=mask, **options)
    assert torch.equal(flat.generate(ids, attention_mask=mask, **options), expected)
    alone = flat.generate(ids[:1, 3:], attention_mask=mask[:1, 3:], **options)
    assert torch.equal(alone[0, 2:], expected[0, 5:])


def test_a_batch_without_a_mask_is_causal(model):
    ids = torch.arange(1, 21)[None]
    whole = model(input_ids=ids, use_cache=False).logits
    half = model(input_ids=ids[:, :10], use_cache=False).logits
    torch.testing.assert_close(whole[:, :10], half, rtol=1e-5, atol=1e-5)


def test_plain_models_take_flat_batches(model):
    assert attention.why_not_flat(model) is None
    probe.settle(model)
    assert attention.takes_flat(model)


def test_soft_caps_fall_back_to_padded_batches_with_one_line(caplog):
    config = Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=20.0)
    model = _model(config)
    caplog.set_level("INFO")
    probe.settle(model)
    assert not attention.takes_flat(model)
    assert model.config._attn_implementation == "eager"
    assert [record.message for record in caplog.records] == [
        "Gemma2ForCausalLM has a soft cap of 20.0 on its attention: "
        "padded batches with eager attention instead"
    ]
    rows = _rows()
    together = token_nll(model, collate_padded(rows))
    alone = torch.cat([token_nll(model, collate_padded([row])) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_attention_sinks_and_other_kinds_of_layers_are_recognised():
    with torch.device("meta"):
        sinks = _model(GptOssConfig(**SIZES, head_dim=8, num_local_experts=2))
        chunks = _model(Llama4TextConfig(**SIZES, head_dim=8, num_local_experts=2))
        linear = _model(Qwen3NextConfig(**SIZES, head_dim=8, num_experts=2))
    assert attention.why_not_flat(sinks) == "has attention sinks"
    assert attention.why_not_flat(chunks) == "has layers of chunked_attention"
    assert attention.why_not_flat(linear) == "does not call transformers' AttentionInterface"
