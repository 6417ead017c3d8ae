"""Generation: a batch answers as each prompt alone does, and an answer ends where it says."""

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from finetune import generation
from finetune.captured import FixedLayer, rounded_up
from finetune.flat import attention
from finetune.generation import (
    Answer,
    Batch,
    Writer,
    answer_prompts,
    batches_by_length,
    stop_tokens,
)

PROMPTS = [[5, 9, 11], [7] * 20, [3, 8], [12, 30, 31, 32, 33, 34, 35], [40], [7] * 19 + [8]]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0 ... w99; w0 pads, w1 ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1")


@pytest.fixture
def model() -> LlamaForCausalLM:
    """A random model whose answers do not repeat themselves at once."""
    torch.manual_seed(0)
    attention.register()
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=attention.NAME)


def _answers(model, tokenizer, prompts=PROMPTS, batch_tokens=10_000, max_new_tokens=12):
    return answer_prompts(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        progress=False,
    )


def test_a_batch_answers_token_for_token_as_each_prompt_alone(model, tokenizer):
    alone = [_answers(model, tokenizer, [prompt])[0] for prompt in PROMPTS]
    assert _answers(model, tokenizer) == alone
    assert _answers(model, tokenizer, batch_tokens=50) == alone
    assert len({answer.text for answer in alone}) == len(PROMPTS)


LIKE = [[5, 6, 7, 8, 9, *rest] for rest in ([11], [7] * 20, [3, 8], [], [30, 31, 32, 33, 34])]


@pytest.mark.parametrize("adapter", [False, True])
def test_what_prompts_begin_with_is_read_once_and_changes_no_answer(model, tokenizer, adapter):
    if adapter:
        lora = LoraConfig("CAUSAL_LM", target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(model, lora)
    alone = [_answers(model, tokenizer, [prompt])[0] for prompt in LIKE]
    read = _count_columns(model)
    assert _answers(model, tokenizer, LIKE) == alone
    # Four tokens in one row, as [5, 6, 7, 8, 9] ends in the fifth; then all but the last column.
    assert read[:2] == [4, len(LIKE) * 20]
    assert _fixed(model, tokenizer, LIKE, 10_000) == alone
    assert _answers(model, tokenizer, [LIKE[1]] * 3) == [alone[1]] * 3
    unpadded = [[5, 6, 7, *range(first, first + 5)] for first in (20, 40, 60)]
    alone = [_answers(model, tokenizer, [prompt])[0] for prompt in unpadded]
    assert _answers(model, tokenizer, unpadded) == alone


def test_where_windows_count_columns_nothing_is_shared(model, tokenizer):
    config = MistralConfig(**model.config.to_dict() | {"sliding_window": 4})
    windows = MistralForCausalLM._from_config(config, attn_implementation=attention.NAME)
    alone = [_answers(windows, tokenizer, [prompt])[0] for prompt in LIKE]
    read = _count_columns(windows)
    assert _answers(windows, tokenizer, LIKE) == alone
    assert read[0] == len(LIKE) * 24


def _count_columns(model) -> list[int]:
    """Filled with the columns, padding included, of each pass."""
    found: list[int] = []
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.register_forward_pre_hook(
        lambda _, __, inputs: found.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    return found


def test_the_answers_are_those_of_transformers_own_greedy_generation(model, tokenizer):
    for prompt, answer in zip(PROMPTS, _answers(model, tokenizer), strict=True):
        settings = {"max_new_tokens": 12, "do_sample": False, "use_cache": True}
        ids = torch.tensor([prompt])
        written = model.generate(ids, eos_token_id=1, pad_token_id=0, **settings)
        words = tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True)
        assert answer.text == words


def test_the_answer_is_the_most_likely_token_after_each_prefix_without_a_cache(model, tokenizer):
    ids = list(PROMPTS[0])
    model.eval()
    for _ in range(6):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    expected = tokenizer.decode(ids[3:])
    assert _answers(model, tokenizer, PROMPTS[:1], max_new_tokens=6)[0].text == expected


def test_an_answer_ends_at_its_first_end_token_and_says_so(model, tokenizer):
    whole = _answers(model, tokenizer)[1]
    end = tokenizer.convert_tokens_to_ids(whole.text.split())[4]
    model.generation_config.eos_token_id = [end, 99]
    answer = _answers(model, tokenizer)[1]
    assert answer.ended and not whole.ended
    assert answer.tokens < whole.tokens == 12
    assert whole.text.startswith(answer.text)


@pytest.mark.parametrize("gives_up", [True, False])
def test_rows_that_have_ended_leave_the_batch_and_change_no_answer(
    model, tokenizer, monkeypatch, gives_up
):
    """Other layers than those of keys and values stay whole."""
    texts = [answer.text.split() for answer in _answers(model, tokenizer)]
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(
        [texts[0][2], texts[1][4], texts[2][4]]
    )
    alone = [_answers(model, tokenizer, [prompt])[0] for prompt in PROMPTS]
    assert len({answer.tokens for answer in alone}) > 2
    if not gives_up:
        monkeypatch.setattr(generation, "DynamicLayer", None)
    sizes = []
    model.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )
    assert _answers(model, tokenizer) == alone
    assert sizes[0] == len(PROMPTS)
    assert sizes == sorted(sizes, reverse=True) and (sizes[-1] < sizes[0]) == gives_up


def _fixed(model, tokenizer, prompts, batch_tokens, max_new_tokens=12) -> list[Answer]:
    """As `_answers`, in fixed memory: what a GPU captures, launched on the CPU."""
    model.eval()
    writer, found = Writer(model, tokenizer, max_new_tokens, fixed=True), {}
    assert writer.fixed
    for rows in batches_by_length([len(p) for p in prompts], max_new_tokens, batch_tokens):
        batch = Batch.align(model, [prompts[row] for row in rows])
        batch.read(model)
        found |= dict(zip(rows, writer.answer(batch), strict=True))
    return [found[row] for row in range(len(prompts))]


@pytest.mark.parametrize("batch_tokens", [10_000, 80, 1])
@pytest.mark.parametrize("max_new_tokens", [1, 5, 12])
def test_steps_in_fixed_memory_write_what_launched_ones_write(
    model, tokenizer, batch_tokens, max_new_tokens
):
    """Whether memory is used again by a smaller batch, made anew, or for one row alone."""
    expected = _answers(model, tokenizer, max_new_tokens=max_new_tokens)
    assert _fixed(model, tokenizer, PROMPTS, batch_tokens, max_new_tokens) == expected
    words = [answer.text.split() for answer in expected]
    ends = [each[len(each) // 2] for each in words[:3]]
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(ends)
    expected = _answers(model, tokenizer, max_new_tokens=max_new_tokens)
    assert any(answer.ended for answer in expected)
    assert _fixed(model, tokenizer, PROMPTS, batch_tokens, max_new_tokens) == expected


def test_an_adapter_writes_in_fixed_memory_too(model, tokenizer):
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    assert _fixed(tuned, tokenizer, PROMPTS, 80) == _answers(tuned, tokenizer)


def _write_elsewhere(self, key_states, value_states, *_args, **_options):
    self.keys.index_copy_(2, self._column * 0, key_states)
    return self.keys, self.values


def _refuse(self, *_args, **_options):
    raise TypeError("a cache of another kind")


@pytest.mark.parametrize("update", [_write_elsewhere, _refuse])
def test_a_model_that_steps_otherwise_in_fixed_memory_is_launched(
    model, tokenizer, monkeypatch, update
):
    monkeypatch.setattr(FixedLayer, "update", update)
    assert not Writer(model.eval(), tokenizer, 12, fixed=True).fixed


def test_a_model_with_windows_is_launched(model, tokenizer):
    config = MistralConfig(**model.config.to_dict() | {"sliding_window": 4})
    windows = MistralForCausalLM._from_config(config, attn_implementation=attention.NAME)
    assert not Writer(windows.eval(), tokenizer, 12, fixed=True).fixed


def test_few_shapes_hold_all():
    found = [rounded_up(number) for number in range(1, 200)]
    assert all(number <= held <= 1.5 * number for number, held in enumerate(found, start=1))
    assert len(set(found)) < 18


def test_an_end_token_as_the_last_one_allowed_still_ends_the_answer(model, tokenizer):
    words = _answers(model, tokenizer, PROMPTS[:1])[0].text.split()
    first_at = words.index(words[-1]) + 1
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(words[-1])
    assert _answers(model, tokenizer, PROMPTS[:1], max_new_tokens=first_at)[0].ended
    assert not _answers(model, tokenizer, PROMPTS[:1], max_new_tokens=first_at - 1)[0].ended


def test_both_the_models_and_the_tokenizers_end_tokens_count(model, tokenizer):
    model.generation_config.eos_token_id = [7, 3]
    assert stop_tokens(model, tokenizer) == [1, 3, 7]


def test_the_publishers_sampling_settings_are_not_applied_and_not_lost(model, tokenizer):
    plain = _answers(model, tokenizer)
    model.generation_config.update(repetition_penalty=5.0, do_sample=True, temperature=3.0)
    assert _answers(model, tokenizer) == plain
    assert model.generation_config.repetition_penalty == 5.0


def test_the_adapter_of_a_peft_model_answers(model, tokenizer):
    base = _answers(model, tokenizer)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    assert _answers(tuned, tokenizer) != base
    with tuned.disable_adapter():
        assert _answers(tuned, tokenizer) == base
    assert not model.config.use_cache


def test_no_prompts_give_no_answers(model, tokenizer):
    assert _answers(model, tokenizer, []) == []


@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 64), st.integers(1, 1000))
def test_every_row_is_in_one_batch_and_batches_keep_to_the_budget(lengths, new, budget):
    batches = list(batches_by_length(lengths, new, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * (longest + new) <= budget
    longest_of = [max(lengths[row] for row in batch) for batch in batches]
    assert longest_of == sorted(longest_of, reverse=True)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9), st.integers(1, 4))
def test_no_other_cut_of_the_rows_by_length_is_cheaper(lengths, new):
    """Padded columns and steps, against every way to cut a few rows."""
    budget = 600

    def cost(batches):
        shapes = [(len(batch), max(lengths[row] for row in batch)) for batch in batches]
        if any(rows > 1 and rows * (longest + new) > budget for rows, longest in shapes):
            return float("inf")
        steps = len(batches) * new * generation.COLUMNS_A_STEP
        return steps + sum(rows * longest for rows, longest in shapes)

    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    cuts = [
        [rows[a:b] for a, b in pairwise([0, *inner, len(rows)])]
        for size in range(len(rows))
        for inner in combinations(range(1, len(rows)), size)
    ]
    assert cost(list(batches_by_length(lengths, new, budget))) == min(map(cost, cuts))
