"""Intervals by hand: what they cover, what is drawn, when there is none."""

import numpy as np
import pytest

from stages.evaluate.intervals import ENOUGH_GROUPS, Bootstrap, Interval, holm, mcnemar


def _difference(base, tuned, weights, *, samples=200, seed=0, groups=None) -> Interval:
    change = np.asarray(tuned, float) - np.asarray(base, float)
    groups = groups or [str(at) for at in range(len(change))]
    return Bootstrap(groups, samples=samples, seed=seed).mean(change, weights)


def test_the_difference_of_plain_means_is_the_mean_of_the_differences():
    interval = _difference([1, 2, 3] * 4, [2, 2, 5] * 4, [1] * 12)
    assert interval.value == 1
    assert 0 <= interval.low <= 1 <= interval.high <= 2


def test_weights_make_the_difference_of_the_loss_one_of_tokens():
    # Row losses are sums: 10 tokens lose 5 nats, 30 tokens gain 1: (-5 + 1) / 40.
    interval = _difference([20, 60] * 8, [15, 61] * 8, [10, 30] * 8)
    assert interval.value == pytest.approx(-0.1)
    assert -0.5 <= interval.low < -0.1 < interval.high <= 1 / 30


def test_the_interval_agrees_with_the_normal_one_where_that_holds():
    rng = np.random.default_rng(1)
    change = rng.normal(0.3, 1.0, size=400)
    interval = _difference([0] * 400, change, [1] * 400, samples=2000)
    error = change.std() / np.sqrt(400)
    assert interval.low == pytest.approx(change.mean() - 1.96 * error, abs=0.01)
    assert interval.high == pytest.approx(change.mean() + 1.96 * error, abs=0.01)
    assert interval.detectable == pytest.approx(2.8 * error, rel=0.1)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        change = rng.normal(0.5, 1.0, size=60)
        interval = _difference([0] * 60, change, [1] * 60, seed=seed)
        hits += interval.low <= 0.5 <= interval.high
    assert 180 <= hits <= 198


def test_rows_of_one_group_are_drawn_together_so_copies_add_no_evidence():
    rng = np.random.default_rng(3)
    change = rng.normal(0.2, 1.0, size=30)
    copies, groups = np.repeat(change, 20), [str(at // 20) for at in range(600)]
    alone = _difference([0] * 30, change, [1] * 30, samples=2000)
    grouped = _difference([0] * 600, copies, [1] * 600, samples=2000, groups=groups)
    as_rows = _difference([0] * 600, copies, [1] * 600, samples=2000)
    assert grouped.error == pytest.approx(alone.error, rel=0.1)
    assert as_rows.error < alone.error / 3


def test_below_a_handful_of_groups_there_is_no_interval():
    few = ENOUGH_GROUPS - 1
    rows = _difference([0] * few, range(few), [1] * few)
    assert rows.value == (few - 1) / 2
    assert rows.low is rows.high is rows.detectable is rows.p is None
    pieces = _difference([0] * 70, range(70), [1] * 70, groups=[str(at % few) for at in range(70)])
    assert pieces.low is None
    assert pieces.verdict(higher_is_better=True) == "not enough evidence"


def test_rows_that_never_differ_say_nothing_of_what_could_be_seen():
    same = _difference([0] * 20, [0] * 20, [1] * 20)
    assert same.value == same.low == same.high == 0
    assert same.detectable is None and same.groups_needed(20) is None


def test_the_same_seed_gives_the_same_interval():
    first, second = (_difference(range(9), range(3, 12), [1] * 9, seed=7) for _ in range(2))
    assert first == second


UNPAIRED = [([1], [1, 2]), ([1], [0]), ([1, 2], [1, -1])]


@pytest.mark.parametrize("sums, weights", UNPAIRED)
def test_values_that_do_not_pair_are_refused(sums, weights):
    with pytest.raises(ValueError):
        Bootstrap(["a"] * len(sums), samples=10, seed=0).mean(sums, weights)


def test_no_row_is_refused():
    with pytest.raises(ValueError, match="no row"):
        Bootstrap([], samples=10, seed=0)


@pytest.mark.parametrize(
    "interval, verdict",
    [
        (Interval(-0.2, -0.3, -0.1), "better"),
        (Interval(0.2, 0.1, 0.3), "worse"),
        (Interval(-0.2, -0.3, 0.0), "not enough evidence"),
        (Interval(0.0, 0.0, 0.0), "not enough evidence"),
    ],
)
def test_a_verdict_needs_an_interval_without_0(interval, verdict):
    assert interval.verdict(higher_is_better=False) == verdict


def test_the_groups_needed_grow_with_the_square_of_the_noise():
    # 2.8 standard errors of 0.1 against a difference of 0.14: twice, so four times the groups.
    assert Interval(0.14, -0.06, 0.34, 0.1).groups_needed(100) == 400
    assert Interval(0.0, -0.1, 0.1, 0.05).groups_needed(100) is None


def test_holm_multiplies_the_smallest_p_by_their_number_and_never_reorders():
    # Holm 1979: .01 x 3, .02 x 2, .03 x 1, each at least the one before.
    found = holm([0.03, 0.01, None, 0.02])
    assert found[2] is None
    assert [found[0], found[1], found[3]] == pytest.approx([0.04, 0.03, 0.04])


def test_mcnemar_is_a_sign_test_on_the_rows_that_differ():
    # 1 against 8 of 9 that differ: 2 x (C(9,0) + C(9,1)) / 2^9.
    first, second = [1] * 5 + [1] + [0] * 8, [1] * 5 + [0] + [1] * 8
    assert mcnemar(first, second) == (1, 8, pytest.approx(2 * 10 / 512))
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)
