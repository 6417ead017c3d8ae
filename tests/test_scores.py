"""Scores by hand: what each counts, what is a label, what the trivial answer is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from stages.evaluate.custom import choose_scores
from stages.evaluate.scores import (
    SCORES,
    accuracy,
    are_labels,
    chrf,
    exact_match,
    label,
    rouge1,
    rougeL,
    token_f1,
    trivial_answers,
    without_thinking,
)

PLAIN = "abcXYZ019 \n,:;?'\"()[]_"  # ASCII without a sign that changes what is meant
ASCII = st.text(PLAIN, max_size=60).map("a".__add__)


def test_rouge_1_counts_common_words_and_rouge_l_their_longest_common_order():
    # 4 of 4 reference words among 5: P 4/5, R 4/4. In order only "can landlord keep": P 3/5, R 3/4.
    texts = ("", "Can my landlord keep", "Can the landlord keep my")
    assert rouge1(*texts) == pytest.approx(2 * (4 / 5) * 1 / (4 / 5 + 1))
    assert rougeL(*texts) == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))


def test_a_repeated_word_counts_as_often_as_the_reference_has_it():
    # One of three answer words, one of two reference words.
    assert rouge1("", "the deposit", "the the the") == pytest.approx(
        2 * (1 / 3) * (1 / 2) / (5 / 6)
    )


def test_case_and_punctuation_do_not_matter_but_word_endings_do():
    assert rougeL("", "Keep my deposit?", "keep MY deposit") == 1
    assert rouge1("", "landlord keeps", "landlords keep") == 0


@pytest.mark.parametrize("answer", ["", "?!", "nothing shared"])
def test_an_answer_without_a_common_word_scores_zero(answer):
    assert rouge1("", "Can my landlord keep it", answer) == 0


def test_words_outside_ascii_are_words():
    assert rougeL("", "Κράτηση ενοικίου", "κράτηση ενοικίου") == 1
    assert rouge1("", "café fermé", "caf ferm") == 0


@pytest.mark.parametrize(
    "reference, answer",
    [("C++", "C#"), ("A+", "A-"), (">50K", "<=50K"), ("-1", "1"), ("12 + 5", "12 - 5"),
     ("दिन", "दान")],
)  # fmt: skip
def test_a_label_that_differs_in_a_sign_is_another_label(reference, answer):
    assert rouge1("", reference, answer) < 1
    assert rouge1("", reference, reference) == rougeL("", answer, answer) == 1


def test_a_label_that_is_a_sign_equals_itself_only():
    assert rouge1("", "👍", "👍") == rougeL("", "+", "+") == 1
    assert rouge1("", "👍", "👎") == rougeL("", "+", "-") == 0


def test_chinese_is_scored_by_characters():  # six in common
    assert rouge1("", "房东可以扣押金吗", "房东能扣押金吗") == pytest.approx(12 / 15)


@given(ASCII, ASCII)
def test_on_ascii_text_without_signs_the_scores_are_those_of_the_package(reference, answer):
    package = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    expected = package.score(reference, answer)
    assert rouge1("", reference, answer) == expected["rouge1"].fmeasure
    assert rougeL("", reference, answer) == expected["rougeL"].fmeasure


def test_the_trivial_answer_is_as_many_first_words_as_the_median_reference_has():
    questions = ["My landlord in Ohio kept it", "Short one"]
    assert trivial_answers(questions, ["one two three", "one two three four five six"]) == [
        "My landlord in",
        "Short one",
    ]


def test_where_answers_repeat_the_trivial_answer_is_the_most_frequent_label():
    references = ["Yes.", "no", "yes", "Yes", "no", "maybe"]
    assert trivial_answers(["q"] * 6, references) == ["Yes."] * 6


@pytest.mark.parametrize(
    "references, expected",
    [
        (["yes", "no", "Yes", "no."], True),
        (["1", "0"] * 5, True),
        ([">50K", "<=50K"] * 4, True),
        (["yes"] * 4, False),  # nothing to tell apart
        (["one", "two", "three", "one"], False),  # titles that happen to repeat
        (["word " * 20 + str(n % 2) for n in range(8)], False),  # canned texts, not labels
        ([], False),
    ],
)
def test_answers_are_labels_where_short_ones_repeat(references, expected):
    assert are_labels(references) is expected


@pytest.mark.parametrize("one, other", [("A+", "A-"), ("A*", "A"), (">50K", "<=50K"), ("-1", "1")])
def test_labels_that_differ_in_a_sign_are_two(one, other):
    assert label(one) != label(other)
    assert not accuracy("", one, other) and not exact_match("", one, other)


def test_a_label_is_the_same_in_quotes_in_capitals_and_as_a_sentence():
    assert {label(text) for text in ("Spam", " spam ", '"Spam"', "SPAM.", "„spam“")} == {"spam"}
    assert not accuracy("", "spam", "spam or ham")


def test_an_exact_match_is_one_of_all_characters_but_case_and_blanks():
    assert exact_match("", "Can  a landlord?", "can a landlord?") == 1
    assert exact_match("", "cafe\u0301", "caf\u00e9") == 1
    assert exact_match("", "Can a landlord?", "Can a landlord") == 0


def test_token_f1_is_that_of_the_words_in_common():
    # 2 of 3 words of the answer, 2 of 4 of the reference.
    assert token_f1("", "a b c d", "b d x") == pytest.approx(4 / 7)
    assert token_f1("", "a a b", "a a a") == pytest.approx(4 / 6)
    assert token_f1("", "word", "") == 0


def test_chrf_is_sacrebleus_between_0_and_1():
    from sacrebleu.metrics import CHRF

    texts = ("Can a landlord keep it", "Can the landlord keep that")
    assert chrf("", *texts) == CHRF().sentence_score(texts[1], [texts[0]]).score / 100
    assert chrf("", "same text", "same text") == pytest.approx(1)


@pytest.mark.parametrize(
    "written, kept",
    [
        ("<think>It is 4.</think>\n\nfour", "four"),
        ("<think>never ends", ""),
        ("opened in the prompt</think> four", "four"),
        ("<thinking>a</thinking>b<think>c</think>", "b"),
        ("I think 4 < 5", "I think 4 < 5"),
    ],
)
def test_what_is_thought_aloud_is_no_answer(written, kept):
    assert without_thinking(written) == kept


def test_accuracy_is_chosen_by_itself_where_answers_are_labels():
    assert list(choose_scores(["loss", "rouge"], ["yes", "no"] * 4)) == [
        "accuracy",
        "rouge1",
        "rougeL",
    ]
    assert list(choose_scores(["loss"], ["a title", "another"])) == []
    assert list(choose_scores(list(SCORES), ["a title"])) == [
        name for group in SCORES.values() for name in group
    ]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function that writes steps/mine_N.py and gives the module's name."""
    import itertools
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    numbers = itertools.count()

    def write(body: str, folder: str = "mine") -> str:
        name = f"score_{next(numbers)}_{tmp_path.name}"
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(body, encoding="utf-8")
        return f"{folder}.{name}"

    yield write
    for name in [each for each in sys.modules if tmp_path.name in each or each == "mine"]:
        del sys.modules[name]


def test_a_score_of_the_users_own_is_found_by_its_dotted_name(own, monkeypatch):
    monkeypatch.setattr("stages.evaluate.custom.FOLDERS", ("mine",))
    module = own("def polite(question, reference, answer):\n    return 'please' in answer\n")
    found = choose_scores(["loss", f"{module}.polite"], ["a"])
    assert found["polite"]("q", "r", "yes please") == 1.0


def test_a_score_that_gives_no_number_or_fails_names_the_question(own, monkeypatch):
    monkeypatch.setattr("stages.evaluate.custom.FOLDERS", ("mine",))
    module = own("def bad(q, r, a):\n    return float(a)\n")
    score = choose_scores([f"{module}.bad"], ["a"])["bad"]
    with pytest.raises(ValueError, match="bad failed on 'the question': ValueError"):
        score("the question", "r", "word")
    with pytest.raises(ValueError, match="gave nan .* a finite number is due"):
        score("the question", "r", "nan")


def test_a_score_in_a_file_that_is_no_dependency_is_refused(own):
    module = own("def score(q, r, a):\n    return 1\n")
    with pytest.raises(ValueError, match="evaluate does not depend on: move it into steps/"):
        choose_scores([f"{module}.score"], ["a"])


@pytest.mark.parametrize("name", ["bleu", "steps.missing.score"])
def test_a_score_that_there_is_not_is_named(name):
    with pytest.raises(ValueError, match=f"evaluate.metrics names '{name}'"):
        choose_scores([name], ["a"])
