"""The gold set: of each kind of page, the text that a reader came for and little else."""

from collections import Counter

import pytest

from finetune.text.words import words
from stages.preprocess.extract import extract
from tests.pages import PAGES


def f1(found, expected):
    """Harmonic mean of precision and recall of words, each as often as it stands there."""
    found, expected = Counter(words(found)), Counter(words(expected))
    return 2 * (found & expected).total() / (found.total() + expected.total())


def test_the_mean_over_all_kinds_of_pages_holds():
    scores = [f1(extract(page, {})["text"], text) for page, text in PAGES.values()]
    assert len(scores) >= 30
    assert sum(scores) / len(scores) >= 0.99


@pytest.mark.parametrize("kind", PAGES)
def test_no_kind_of_page_loses_its_text(kind):
    page, text = PAGES[kind]
    assert f1(extract(page, {})["text"], text) >= 0.95


EXACT = [
    "documentation", "highlighted code", "table", "list", "wiki", "french wiki", "menu of dishes",
    "equal rows", "german", "japanese", "long story before a recipe",
]  # fmt: skip


@pytest.mark.parametrize("kind", EXACT)
def test_headings_code_lists_and_tables_are_written_as_they_stood(kind):
    page, text = PAGES[kind]
    assert extract(page, {})["text"] == text


def test_the_same_page_gives_the_same_text_whatever_was_read_before():
    first = {kind: extract(page, {}) for kind, (page, _) in PAGES.items()}
    again = {kind: extract(page, {}) for kind, (page, _) in reversed(PAGES.items())}
    assert first == again
