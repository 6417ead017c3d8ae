"""Shares are exact to one row, whatever the sources hold."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.preprocess.mixture import choose, interleave, tell_uses


def _params(shares, total=None, repeat=False, unit="tokens", most=None):
    names = sorted(shares)
    preprocess = SimpleNamespace(
        mixture_total=total, mixture_repeat=repeat, mixture_unit=unit, max_uses=most
    )
    data = SimpleNamespace(names=lambda: names)
    return SimpleNamespace(mixture=shares, preprocess=preprocess, data=data)


def _rows(lengths):
    """Sources, keys and weights of rows with these lengths, by source in the order of names."""
    sources = np.repeat(np.arange(len(lengths)), [len(lengths[name]) for name in sorted(lengths)])
    weights = np.concatenate([np.array(lengths[name], float) for name in sorted(lengths)])
    keys = np.random.default_rng(1).permutation(len(weights)).astype(np.uint64)
    return sources, keys, weights


LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.dictionaries(st.sampled_from("abcdef"), LENGTHS, min_size=1),
    parts=st.lists(st.integers(1, 50), min_size=6, max_size=6),
)
def test_each_source_is_within_half_a_row_of_its_share_of_the_largest_possible_total(
    lengths, parts
):
    shares = dict(zip(sorted(lengths), map(float, parts), strict=False))
    sources, keys, weights = _rows(lengths)
    rows, found = choose(_params(shares), sources, keys, weights)
    whole = sum(shares.values())
    total = min(sum(lengths[name]) * whole / share for name, share in shares.items())
    for number, name in enumerate(sorted(lengths)):
        target = total * shares[name] / whole
        used = weights[rows[sources[rows] == number]].sum()
        assert abs(used - target) <= max(lengths[name]) / 2 + 1e-6
        assert found[name].used == used
        assert found[name].available == sum(lengths[name])
    assert len(set(rows.tolist())) == len(rows)  # none is repeated


def test_the_recipe_is_exact_where_rows_are_small():
    shares = {"a": 0.43, "b": 0.25, "c": 0.18, "d": 0.10, "e": 0.03, "f": 0.01}
    lengths = {name: [10] * 5_000 for name in shares}
    _, found = choose(_params(shares), *_rows(lengths))
    for name, share in shares.items():
        assert found[name].achieved == pytest.approx(share, abs=1e-4)


def test_the_only_source_is_taken_whole_and_in_order():
    rows, found = choose(_params({"a": 1.0}), *_rows({"a": [5, 9, 2, 8]}))
    assert rows.tolist() == [0, 1, 2, 3]
    assert found["a"].uses == 1.0


def test_a_source_with_share_0_is_left_out():
    rows, found = choose(_params({"a": 1.0, "b": 0.0}), *_rows({"a": [5, 5], "b": [5, 5]}))
    assert rows.tolist() == [0, 1]
    assert found["b"].used == 0


def test_a_total_is_kept_where_the_sources_suffice():
    params = _params({"a": 0.75, "b": 0.25}, total=400)
    _, found = choose(params, *_rows({"a": [10] * 100, "b": [10] * 100}))
    assert (found["a"].used, found["b"].used) == (300, 100)


def test_a_source_that_is_too_small_is_an_error_that_says_what_it_lacks():
    params = _params({"a": 0.75, "b": 0.25}, total=10_000)
    with pytest.raises(ValueError, match=r"mixture.b needs 2,500 tokens .* but b has 1,000"):
        choose(params, *_rows({"a": [10] * 1000, "b": [10] * 100}))


def test_a_source_that_is_too_small_is_repeated_where_that_is_allowed():
    params = _params({"a": 0.75, "b": 0.25}, total=1_000, repeat=True)
    sources, keys, weights = _rows({"a": [10] * 100, "b": [10] * 10})
    rows, found = choose(params, sources, keys, weights)
    assert found["b"].uses == 2.5
    times = np.bincount(rows, minlength=110)[100:]
    assert sorted(times.tolist()) == [2] * 5 + [3] * 5
    assert rows.tolist() == sorted(rows.tolist())


def test_with_repetition_and_no_total_every_row_is_used():
    params = _params({"a": 0.5, "b": 0.5}, repeat=True)
    rows, found = choose(params, *_rows({"a": [10] * 40, "b": [10] * 10}))
    assert found["a"].uses == 1 and found["b"].uses == 4
    assert set(rows.tolist()) == set(range(50))


def test_no_row_is_used_more_often_than_max_uses():
    rows = _rows({"a": [10] * 40, "b": [10] * 10})
    _, found = choose(_params({"a": 0.5, "b": 0.5}, repeat=True, most=3), *rows)
    assert found["b"].uses == 3 and found["a"].uses == 0.75
    with pytest.raises(ValueError, match=r"mixture.b needs 400 .* 4.0 uses .*max_uses 3"):
        choose(_params({"a": 0.5, "b": 0.5}, total=800, repeat=True, most=3), *rows)


def test_a_row_that_is_used_very_often_is_told(caplog):
    params = _params({"a": 0.5, "b": 0.5}, repeat=True)
    _, found = choose(params, *_rows({"a": [10] * 100, "b": [10] * 10}))
    tell_uses(found)
    assert "b: each row is used 10.0 times" in caplog.text and "max_uses" in caplog.text
    assert "a: each" not in caplog.text


def test_a_source_without_a_document_is_an_error():
    sources, keys, weights = _rows({"a": [5]})
    with pytest.raises(ValueError, match="no training document of b is left"):
        choose(_params({"a": 0.5, "b": 0.5}), sources, keys, weights)


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, more=LENGTHS)
def test_adding_rows_to_one_source_takes_none_of_another_away(lengths, more):
    few = _rows({"a": lengths, "b": lengths})
    rows, _ = choose(_params({"a": 0.5, "b": 0.5}), *few)
    added = len(more)
    sources = np.concatenate([few[0], np.full(added, 0)])
    keys = np.concatenate([few[1], 1000 + np.arange(added, dtype=np.uint64)])
    weights = np.concatenate([few[2], np.array(more, float)])
    again, _ = choose(_params({"a": 0.5, "b": 0.5}), sources, keys, weights)
    of_b = set(rows[few[0][rows] == 1].tolist())
    assert of_b <= set(again.tolist())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400))
def test_any_beginning_of_the_held_out_rows_holds_the_shares(count):
    shares = {"a": 0.6, "b": 0.3, "c": 0.1}
    sources, keys, weights = _rows({name: [10] * 1_000 for name in shares})
    order = interleave(_params(shares), sources, keys, weights)
    assert sorted(order.tolist()) == list(range(3_000))
    for number, share in enumerate(shares.values()):
        assert abs((sources[order[:count]] == number).sum() - share * count) <= 1


def test_held_out_rows_without_a_share_come_last():
    sources, keys, weights = _rows({"a": [1] * 5, "b": [1] * 5})
    order = interleave(_params({"a": 0.0, "b": 1.0}), sources, keys, weights)
    assert sources[order].tolist() == [1] * 5 + [0] * 5
