"""Memory: what a step takes by estimate, and what is given up when that is too much."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from finetune.model import memory
from finetune.model.memory import Fit, choices, estimate, next_smaller, preflight, settle
from finetune.params import load

ROOT_PARAMS = "presets/law-mistral-7b.yaml"


@pytest.fixture(scope="module")
def mistral_7b():
    """The 7B shape, without weights."""
    config = MistralConfig(vocab_size=32768, num_key_value_heads=8)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def law(request):
    params = load(request.config.rootpath / ROOT_PARAMS)
    return with_train(dequantized(params, False), compile=True, micro_batch_tokens=16384)


def with_train(params, **changes):
    return replace(params, train=replace(params.train, **changes))


def dequantized(params, value):
    return replace(params, quantization=replace(params.quantization, dequantize=value))


def test_smaller_passes_come_before_checkpointing_and_none_is_below_the_longest_example(law):
    found = choices(with_train(law, micro_batch_tokens=8192), longest=700, share=64)
    plain = [Fit(8192, False), Fit(4096, False), Fit(2048, False)]
    again = [Fit(tokens, True) for tokens in (8192, 4096, 2048, 1024, 700)]
    assert found == plain + again


def test_what_asks_for_checkpointing_gets_no_pass_without(law):
    params = with_train(law, micro_batch_tokens=600, gradient_checkpointing=True)
    assert choices(params, longest=512, share=64) == [Fit(600, True), Fit(512, True)]


def test_a_budget_that_no_step_can_fill_is_not_counted(law):
    assert choices(law, longest=512, share=8)[0] == Fit(4096, False)


def test_a_small_budget_is_tried_as_it_is(law):
    assert choices(with_train(law, micro_batch_tokens=512), longest=512, share=64) == [
        Fit(512, False),
        Fit(512, True),
    ]


def test_four_bit_weights_of_the_7b_shape_take_four_gigabytes(mistral_7b, law):
    found = estimate(mistral_7b, law, Fit(2048, True))
    assert 4.0e9 < found.weights < 4.5e9
    assert found.total < 11e9


def test_dequantised_weights_take_four_times_as_much(mistral_7b, law):
    found = estimate(mistral_7b, dequantized(law, True), Fit(2048, True))
    assert 14e9 < found.weights < 15e9


def test_estimates_grow_with_tokens_and_shrink_with_checkpointing(mistral_7b, law):
    small, large = (estimate(mistral_7b, law, Fit(tokens, False)) for tokens in (2048, 8192))
    again = estimate(mistral_7b, law, Fit(8192, True))
    assert large.activations == pytest.approx(4 * small.activations, rel=1e-6)
    assert again.activations < large.activations / 5


def test_a_large_device_takes_what_is_asked_for(mistral_7b, law):
    options = choices(law, longest=512, share=64)
    params, kept = preflight(mistral_7b, law, options, available=190_000_000_000)
    assert (params, kept) == (law, options)


def test_dequantised_weights_are_given_up_before_a_useful_pass(mistral_7b, law):
    params = dequantized(law, True)
    options = choices(params, longest=512, share=64)
    params, kept = preflight(mistral_7b, params, options, available=22_000_000_000)
    assert not params.quantization.dequantize
    assert not kept[0].checkpointing


def test_a_device_of_12_gb_trains_the_7b_shape(mistral_7b, law):
    _, kept = preflight(
        mistral_7b, law, choices(law, longest=512, share=64), available=11_200_000_000
    )
    assert kept[0].tokens >= 1024


def test_a_device_that_is_too_small_is_refused_with_the_estimate(mistral_7b, law):
    with pytest.raises(ValueError, match=r"has 3\.0 GB, the smallest step needs .*weights 4\."):
        preflight(mistral_7b, law, choices(law, longest=512, share=64), available=3_000_000_000)


def test_probes_go_on_until_one_fits():
    tried = []

    def probe(option):
        tried.append(option)
        if option.tokens > 256:
            raise torch.OutOfMemoryError("no room")

    options = [Fit(1024, False), Fit(512, False), Fit(256, True)]
    assert settle(options, probe) == Fit(256, True)
    assert tried == options


def test_other_errors_of_a_probe_are_not_taken_for_memory():
    def probe(option):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        settle([Fit(1024, False), Fit(512, False)], probe)


def test_where_nothing_fits_the_error_says_what_to_change():
    def probe(option):
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(
        ValueError, match="512 tokens with checkpointing: lower preprocess.max_length"
    ):
        settle([Fit(1024, False), Fit(512, True)], probe)


def test_a_step_that_runs_out_of_memory_goes_on_with_the_next_option():
    options = [Fit(1024, False), Fit(512, False), Fit(512, True)]
    assert next_smaller(options, options[0]) == options[1]
    with pytest.raises(
        ValueError, match="out of memory at 512 tokens with checkpointing: lower preprocess"
    ):
        next_smaller(options, options[-1])


def test_a_failed_probe_leaves_no_tensor_behind():
    import weakref

    kept = []

    def probe(option):
        held = torch.zeros(10)
        kept.append(weakref.ref(held))
        if option.tokens == 2:
            raise torch.OutOfMemoryError("no room")
        assert kept[0]() is None

    assert settle([Fit(2, False), Fit(1, False)], probe) == Fit(1, False)


def test_layers_are_found_in_any_architecture(mistral_7b):
    assert len(memory.layers_of(mistral_7b)) == 32
