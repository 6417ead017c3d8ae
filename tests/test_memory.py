"""Memory: what a step takes by estimate, and what is given up when that is too much."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from finetune.model import memory
from finetune.model.layers import layers_of
from finetune.model.memory import choose_evaluation, fit_evaluation
from finetune.params import Compute, load
from stages.train.fast.fitting import Fit, Fitting, estimate, keep_fitting, list_fits

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


def test_smaller_passes_come_before_recomputing_and_none_is_below_the_longest_example(law):
    found = list_fits(with_train(law, micro_batch_tokens=8192), longest=700, share=64)
    plain = [Fit(8192, False), Fit(4096, False), Fit(2048, False)]
    again = [Fit(tokens, True) for tokens in (8192, 4096, 2048, 1024, 700)]
    assert found == plain + again


def test_what_asks_for_recomputing_gets_no_pass_without(law):
    params = with_train(law, micro_batch_tokens=600, gradient_checkpointing=True)
    assert list_fits(params, longest=512, share=64) == [Fit(600, True), Fit(512, True)]


def test_a_budget_that_no_step_can_fill_is_not_counted(law):
    assert list_fits(law, longest=512, share=8)[0] == Fit(4096, False)


def test_a_small_budget_is_tried_as_it_is(law):
    assert list_fits(with_train(law, micro_batch_tokens=512), longest=512, share=64) == [
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


def test_estimates_grow_with_tokens_and_shrink_with_recomputing(mistral_7b, law):
    small, large = (estimate(mistral_7b, law, Fit(tokens, False)) for tokens in (2048, 8192))
    again = estimate(mistral_7b, law, Fit(8192, True))
    assert large.activations == pytest.approx(4 * small.activations, rel=1e-6)
    assert again.activations < large.activations / 5


def with_whole(params, modules):
    return replace(params, lora=replace(params.lora, modules_to_save=modules))


def test_modules_trained_whole_count_with_gradient_and_states(mistral_7b, law):
    fit, size = Fit(2048, True), 32768 * 4096
    plain = estimate(mistral_7b, with_train(law, optim="adamw_torch"), fit)
    params = with_whole(with_train(law, optim="adamw_torch"), ["embed_tokens", "lm_head"])
    both = estimate(mistral_7b, params, fit)
    assert both.adapter - plain.adapter == both.optimizer - plain.optimizer == 2 * size * 8
    assert both.workspace > plain.workspace and both.weights == plain.weights
    small = with_whole(with_train(law, optim="adamw_8bit"), ["embed_tokens", "lm_head"])
    without = estimate(mistral_7b, with_whole(small, None), fit)
    # Trainer keeps an embedding's states in 32 bits.
    assert estimate(mistral_7b, small, fit).optimizer - without.optimizer == size * (8 + 2)


def test_a_head_that_is_the_embedding_counts_once(law):
    config = MistralConfig(vocab_size=32768, num_hidden_layers=2, tie_word_embeddings=True)
    with torch.device("meta"):
        tied = AutoModelForCausalLM.from_config(config)
    fit = Fit(2048, True)
    found = [
        estimate(tied, with_whole(law, whole), fit).adapter
        for whole in (None, ["lm_head"], ["embed_tokens", "lm_head"])
    ]
    assert found[1] == found[2] == found[0] + 8 * 32768 * 4096


def test_a_large_device_takes_what_is_asked_for(mistral_7b, law):
    options = list_fits(law, longest=512, share=64)
    params, kept = keep_fitting(mistral_7b, law, options, available=190_000_000_000)
    assert (params, kept) == (law, options)


def test_dequantised_weights_are_given_up_before_a_useful_pass(mistral_7b, law):
    params = dequantized(law, True)
    options = list_fits(params, longest=512, share=64)
    params, kept = keep_fitting(mistral_7b, params, options, available=22_000_000_000)
    assert not params.quantization.dequantize
    assert not kept[0].recomputed


def test_a_device_of_12_gb_trains_the_7b_shape(mistral_7b, law):
    _, kept = keep_fitting(
        mistral_7b, law, list_fits(law, longest=512, share=64), available=11_200_000_000
    )
    assert kept[0].tokens >= 1024


def test_a_device_that_is_too_small_is_refused_with_the_estimate(mistral_7b, law):
    with pytest.raises(ValueError, match=r"has 3\.0 GB, the smallest step needs .*weights 4\."):
        keep_fitting(mistral_7b, law, list_fits(law, longest=512, share=64), 3_000_000_000)


def _fitting(fits, used, processes=1):
    return Fitting(fits, used.append, processes)


CPU = torch.device("cpu")


def test_probes_go_on_until_one_fits():
    tried, used = [], []

    def probe(fit):
        tried.append(fit)
        if fit.tokens > 256:
            raise torch.OutOfMemoryError("no room")

    fits = [Fit(1024, False), Fit(512, False), Fit(256, True)]
    fitting = _fitting(fits, used)
    fitting.choose(probe, CPU)
    assert fitting.fit == Fit(256, True) == used[-1] and tried == fits


def test_other_errors_of_a_probe_are_not_taken_for_memory():
    def probe(fit):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        _fitting([Fit(1024, False), Fit(512, False)], []).choose(probe, CPU)


def _no_room(*_):
    raise torch.OutOfMemoryError("no room")


def test_where_nothing_fits_the_error_says_what_to_change():
    fitting = _fitting([Fit(1024, False), Fit(512, True)], [])
    with pytest.raises(ValueError, match="512 tokens, recomputed: lower preprocess.max_length"):
        fitting.choose(_no_room, CPU)


def test_a_step_that_runs_out_of_memory_goes_on_with_the_next_fit():
    fits = [Fit(1024, False), Fit(512, True)]
    fitting = _fitting(fits, used := [])
    assert fitting.attempt(_no_room) is None and fitting.fit == fits[1] == used[-1]
    with pytest.raises(ValueError, match="out of memory at 512 tokens, recomputed: lower preproc"):
        fitting.attempt(_no_room)
    with pytest.raises(ValueError, match="train.memory to auto"):
        _fitting(fits[:1], []).attempt(_no_room)
    with pytest.raises(ValueError, match="one of 2 processes"):
        _fitting(fits, [], processes=2).attempt(_no_room)


def test_a_failed_probe_leaves_no_tensor_behind():
    import weakref

    kept = []

    def probe(fit):
        held = torch.zeros(10)
        kept.append(weakref.ref(held))
        if fit.tokens == 2:
            raise torch.OutOfMemoryError("no room")
        assert kept[0]() is None

    fitting = _fitting([Fit(2, False), Fit(1, False)], [])
    fitting.choose(probe, CPU)
    assert fitting.fit == Fit(1, False)


GPU = Compute(device="cuda", dtype="bfloat16", num_threads=None, matmul="bfloat16")


@pytest.mark.parametrize(
    ("gigabytes", "dequantized"), [(12, False), (16, False), (24, True), (80, True)]
)
def test_whoever_evaluates_the_7b_shape_holds_it_so_that_it_fits(
    mistral_7b, law, gigabytes, dequantized
):
    """Training on 12 and 16 GB gives dequantised weights up; so must every other loader."""
    asked = replace(law.quantization, dequantize=True)
    available = int(gigabytes * 1e9 * (1 - memory.RESERVE))
    found, tokens = choose_evaluation(mistral_7b, asked, GPU, 16384, available)
    assert found.dequantize == dequantized and tokens >= 8192
    assert memory.evaluation_bytes(mistral_7b, found, GPU, tokens) <= available
    params, kept = keep_fitting(
        mistral_7b, with_dequantized(law), list_fits(law, longest=512, share=8), available
    )
    assert estimate(mistral_7b, params, kept[0]).total <= available
    if not dequantized:
        assert not params.quantization.dequantize


def with_dequantized(params):
    return dequantized(params, True)


def test_an_evaluation_that_cannot_fit_is_refused_in_one_line(mistral_7b, law):
    with pytest.raises(ValueError, match=r"has 3\.0 GB left, the smallest evaluation needs 4\."):
        choose_evaluation(mistral_7b, law.quantization, GPU, 16384, 3_000_000_000)


def test_a_cpu_changes_nothing(law):
    asked = replace(law.quantization, dequantize=True)
    cpu = replace(GPU, device="cpu")
    assert fit_evaluation(None, asked, cpu, 16384) == (asked, 16384)


def test_under_fsdp_a_share_is_trained_and_the_whole_is_loaded(mistral_7b, law):
    fit = Fit(2048, True)
    whole, share = (estimate(mistral_7b, law, fit, shards) for shards in (1, 8))
    assert share.weights == whole.weights // 8 and share.adapter == whole.adapter // 8
    assert share.activations == whole.activations
    assert share.total >= share.loading == whole.weights


def test_layers_are_found_in_any_architecture(mistral_7b):
    assert len(layers_of(mistral_7b)) == 32
