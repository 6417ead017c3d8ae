"""Every example is trained on exactly as planned, however its step is cut and shared."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.flat.batches import collate, collate_flat, collate_padded, count_groups, cut, fill
from finetune.text.tokens import Example, TokenRows, TokenWriter
from stages.train.steps import Plan, Steps

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)
ROWS = [
    Example("a", "law", np.array([5, 6, 7, 8], np.int32), np.array([2, 4], np.int32)),
    Example("b", "law", np.array([9, 10], np.int32), np.array([1, 2], np.int32)),
    Example("c", "law", np.arange(20, 27, dtype=np.int32), np.array([1, 3, 5, 7], np.int32)),
]


@pytest.fixture
def rows(tmp_path) -> TokenRows:
    drawn = np.random.default_rng(0)
    with TokenWriter(tmp_path / "train") as writer:
        for number in range(23):
            length = int(drawn.integers(4, 40))
            ids = drawn.integers(3, 90, length).tolist()
            writer.write(str(number), "law", ids, [length // 2, length])
    return TokenRows(tmp_path / "train")


def _plan(rows, **changes) -> Plan:
    options = {"seed": 7, "steps": 20, "share": 8, "processes": 1, "budget": 100}
    return Plan(rows, **options | changes)


def test_a_flat_batch_predicts_each_supervised_token_from_the_one_before():
    batch = collate_flat(ROWS)
    kept = batch.inputs["logits_to_keep"]
    ids = batch.inputs["input_ids"][0]
    assert batch.targets.tolist() == [7, 8, 10, 21, 22, 25, 26]
    assert torch.equal(ids[kept + 1], batch.targets)
    assert batch.owners.tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert batch.inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5, 6]
    assert batch.inputs["cu_seq_lens_q"].tolist() == [0, 4, 6, 13]
    assert batch.inputs["cu_seq_lens_q"].dtype == torch.int32
    assert batch.inputs["max_length_q"] == 7
    assert batch.tokens == 13


def test_a_padded_batch_predicts_the_same_tokens_from_the_same_places():
    batch = collate_padded(ROWS)
    kept, ids = batch.inputs["logits_to_keep"], batch.inputs["input_ids"]
    assert torch.equal(batch.targets, collate_flat(ROWS).targets)
    assert torch.equal(ids[batch.rows, kept[batch.columns] + 1], batch.targets)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [4, 2, 7]


def test_the_mask_goes_by_position_where_an_example_holds_the_pad_token():
    row = Example("a", "law", np.array([0, 3, 0], np.int32), np.array([1, 3], np.int32))
    assert collate_padded([row, ROWS[2]]).inputs["attention_mask"][0].tolist() == [1] * 3 + [0] * 4


@pytest.mark.parametrize(
    ("lengths", "padded", "kind"),
    [
        ((1024, 1024), False, (2, 1024)),
        ((1024, 1023), False, (1, 2047)),
        ((1024,), False, (1, 1024)),
        ((512, 512), False, (1, 1024)),
        ((1024, 1024), True, (2, 1024)),
        ((3, 5), True, (2, 5)),
    ],
)
def test_long_rows_of_one_length_are_stacked(lengths, padded, kind):
    rows = [
        Example("a", "law", np.arange(1, length + 1, dtype=np.int32), np.array([1, 2], np.int32))
        for length in lengths
    ]
    batch = collate(rows, padded)
    assert batch.inputs["input_ids"].shape == kind
    assert ("cu_seq_lens_q" in batch.inputs) == (kind[0] == 1)


@given(LENGTHS, st.integers(50, 400), st.booleans())
def test_every_example_is_in_one_micro_batch_under_the_budget(lengths, budget, padded):
    groups = count_groups(lengths, budget, padded)
    for more in range(groups, min(groups + 3, len(lengths)) + 1):
        parts = cut(lengths, more, padded)
        assert sorted(at for part in parts for at in part) == list(range(len(lengths)))
        assert len(parts) == more and all(parts)
    for part in cut(lengths, groups, padded):
        longest = max(lengths[at] for at in part)
        assert (longest * len(part) if padded else sum(lengths[at] for at in part)) <= budget


@given(LENGTHS, st.integers(50, 400), st.booleans())
def test_evaluation_reads_every_example_once_under_the_budget(lengths, budget, padded):
    parts = fill(lengths, budget, padded)
    assert sorted(at for part in parts for at in part) == list(range(len(lengths)))
    for part in parts:
        longest = max(lengths[at] for at in part)
        assert (longest * len(part) if padded else sum(lengths[at] for at in part)) <= budget


def test_micro_batches_are_balanced():
    lengths = [100, 20, 20, 20, 20, 20]
    assert [sum(lengths[at] for at in part) for part in cut(lengths, 2, padded=False)] == [100, 100]


def test_an_example_above_the_budget_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="micro_batch_tokens is 100, an example has 101"):
        count_groups([5, 101], 100, padded=False)


def test_each_pass_reads_every_example_once_in_another_order(rows):
    plan = _plan(rows, steps=23)
    seen = np.concatenate([plan.rows_of(step) for step in range(23)])
    passes = seen.reshape(8, 23)
    assert all(sorted(each) == list(range(23)) for each in passes)
    assert len({tuple(each) for each in passes}) == 8


def test_the_order_follows_from_the_seed_and_the_step_alone(rows):
    late = _plan(rows).rows_of(19)
    plan = _plan(rows)
    for step in range(19):
        plan.rows_of(step)
    assert np.array_equal(plan.rows_of(19), late)
    assert not np.array_equal(_plan(rows, seed=8).rows_of(19), late)


@pytest.mark.parametrize("budget", [40, 60, 1000])
def test_processes_share_a_step_without_overlap_in_as_many_micro_batches(rows, budget):
    one, three = _plan(rows, share=12), _plan(rows, share=4, processes=3, budget=budget)
    for step in range(20):
        cuts = [three.cut(step, process) for process in range(3)]
        assert len({len(each) for each in cuts}) == 1
        read = np.concatenate([group for each in cuts for group in each])
        assert sorted(read) == sorted(one.rows_of(step))


def test_processes_share_the_work_of_a_step_equally(rows):
    plan = _plan(rows, share=16, processes=2)
    for step in range(20):
        tokens = [plan.lengths[np.concatenate(plan.cut(step, each))].sum() for each in range(2)]
        assert max(tokens) <= 1.05 * min(tokens)


def test_supervised_tokens_count_over_all_processes(rows):
    plan = _plan(rows, share=4, processes=2)
    steps = [Steps(rows, plan, process)[3] for process in range(2)]
    targets = sum(len(batch.targets) for step in steps for batch in step.micro_batches)
    assert steps[0].supervised == steps[1].supervised == targets


def test_seen_counts_what_the_steps_hold(rows):
    plan, steps = _plan(rows), Steps(rows, _plan(rows), 0)
    read = [batch for step in range(7) for batch in steps[step].micro_batches]
    assert plan.seen(7) == {
        "examples": 56,
        "tokens": sum(batch.tokens for batch in read),
        "supervised_tokens": sum(len(batch.targets) for batch in read),
    }
