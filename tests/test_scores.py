"""Scores by hand: what ROUGE counts, what the trivial answer is, what an interval covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from stages.evaluate.scores import paired_difference, rouge, trivial_answers

PLAIN = "abcXYZ019 \n,:;?'\"()[]_"  # ASCII without a sign that changes what is meant
ASCII = st.text(PLAIN, max_size=60).map("a".__add__)


def test_rouge_1_counts_common_words_and_rouge_l_their_longest_common_order():
    # 4 of 4 reference words among 5: P 4/5, R 4/4. In order only "can landlord keep": P 3/5, R 3/4.
    scores = rouge("Can my landlord keep", "Can the landlord keep my")
    assert scores.one == pytest.approx(2 * (4 / 5) * 1 / (4 / 5 + 1))
    assert scores.longest == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))


def test_a_repeated_word_counts_as_often_as_the_reference_has_it():
    # One of three answer words, one of two reference words.
    assert rouge("the deposit", "the the the").one == pytest.approx(2 * (1 / 3) * (1 / 2) / (5 / 6))


def test_case_and_punctuation_do_not_matter_but_word_endings_do():
    assert rouge("Keep my deposit?", "keep MY deposit").longest == 1
    assert rouge("landlord keeps", "landlords keep").one == 0


@pytest.mark.parametrize("answer", ["", "?!", "nothing shared"])
def test_an_answer_without_a_common_word_scores_zero(answer):
    assert rouge("Can my landlord keep it", answer).one == 0


def test_words_outside_ascii_are_words():
    assert rouge("Κράτηση ενοικίου", "κράτηση ενοικίου").longest == 1
    assert rouge("café fermé", "caf ferm").one == 0


@pytest.mark.parametrize(
    "reference, answer",
    [("C++", "C#"), ("A+", "A-"), (">50K", "<=50K"), ("-1", "1"), ("12 + 5", "12 - 5"),
     ("दिन", "दान")],
)  # fmt: skip
def test_a_label_that_differs_in_a_sign_is_another_label(reference, answer):
    assert rouge(reference, answer).one < 1
    assert rouge(reference, reference).one == rouge(answer, answer).longest == 1


def test_a_label_that_is_a_sign_equals_itself_only():
    assert rouge("👍", "👍").one == rouge("+", "+").longest == 1
    assert rouge("👍", "👎").one == rouge("+", "-").longest == 0


def test_chinese_is_scored_by_characters():  # six in common
    assert rouge("房东可以扣押金吗", "房东能扣押金吗").one == pytest.approx(12 / 15)


@given(ASCII, ASCII)
def test_on_ascii_text_without_signs_the_scores_are_those_of_the_package(reference, answer):
    package = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    expected = package.score(reference, answer)
    assert rouge(reference, answer).one == expected["rouge1"].fmeasure
    assert rouge(reference, answer).longest == expected["rougeL"].fmeasure


def test_the_trivial_answer_is_as_many_first_words_as_the_median_reference_has():
    questions = ["My landlord in Ohio kept it", "Short one"]
    assert trivial_answers(questions, ["one two three", "one two three four five six"]) == [
        "My landlord in",
        "Short one",
    ]


def test_the_difference_of_plain_means_is_the_mean_of_the_differences():
    interval = paired_difference([1, 2, 3], [2, 2, 5], [1, 1, 1], samples=200, seed=0)
    assert interval.value == 1
    assert 0 <= interval.low <= 1 <= interval.high <= 2


def test_weights_make_the_difference_of_the_loss_one_of_tokens():
    # Row losses are sums: 10 tokens lose 5 nats, 30 tokens gain 1: (-5 + 1) / 40.
    interval = paired_difference([20, 60], [15, 61], [10, 30], samples=50, seed=0)
    assert interval.value == pytest.approx(-0.1)
    assert (interval.low, interval.high) == (pytest.approx(-0.5), pytest.approx(1 / 30))


def test_the_interval_agrees_with_the_normal_one_where_that_holds():
    rng = np.random.default_rng(1)
    change = rng.normal(0.3, 1.0, size=400)
    interval = paired_difference([0] * 400, change, [1] * 400, samples=2000, seed=0)
    half = 1.96 * change.std() / np.sqrt(400)
    assert interval.low == pytest.approx(change.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(change.mean() + half, abs=0.01)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        change = rng.normal(0.5, 1.0, size=60)
        interval = paired_difference([0] * 60, change, [1] * 60, samples=200, seed=seed)
        hits += interval.low <= 0.5 <= interval.high
    assert 180 <= hits <= 198


def test_the_same_seed_gives_the_same_interval():
    first, second = (
        paired_difference([1, 2, 4], [0, 2, 1], [1, 2, 3], samples=100, seed=7) for _ in range(2)
    )
    assert first == second


UNPAIRED = [([1], [1, 2], [1]), ([], [], []), ([1], [1], [0])]


@pytest.mark.parametrize("base, tuned, weights", UNPAIRED)
def test_scores_that_do_not_pair_are_refused(base, tuned, weights):
    with pytest.raises(ValueError):
        paired_difference(base, tuned, weights, samples=10, seed=0)
