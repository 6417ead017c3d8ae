"""One pattern of words for splitting, near-duplicates and scores, in any script."""

import re

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from finetune.text.words import utf8_words, words

TEXTS = [
    ("Keep MY deposit, 2 weeks!", ["keep", "my", "deposit", "2", "weeks"]),
    ("snake_case don't", ["snake", "case", "don", "t"]),
    ("STRASSE Straße ΌΣΟΣ", ["strasse", "strasse", "όσοσ"]),
    ("cafe\u0301 café", ["café", "café"]),
    ("दिन दान किराया", ["दिन", "दान", "किराया"]),
    ("বাংলা வணக்கம்", ["বাংলা", "வணக்கம்"]),
    ("שָׁלוֹם العَرَبِيّة", ["שָׁלוֹם", "العَرَبِيّة"]),
    ("می\u200cخواهم co\u00adoperate", ["میخواهم", "cooperate"]),
    ("房东扣押金。2024年", ["房", "东", "扣", "押", "金", "2024", "年"]),
    ("ラーメン", ["ラ", "ー", "メ", "ン"]),
    ("ค่าเช่า", ["ค่", "า", "เ", "ช่", "า"]),
    ("မြန်မာ", ["မြ", "န်", "မာ"]),
    ("+", ["+"]),
    ("?! -", ["?", "!", "-"]),
    ("👩\u200d⚕\ufe0f 👍🏽 🇩🇪", ["👩\u200d⚕", "👍🏽", "🇩🇪"]),
    (" \n", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_the_words_of_a_text(text, expected):
    assert words(text) == expected
    assert utf8_words(text) == [word.encode() for word in expected]


SIGNS = [
    ("C++, C#, R", "c ++ c # r"),
    ("A+ or A-.", "a + or a -"),
    (">50K <=50K", "> 50k <= 50k"),
    ("-1 \u22121 1 .5 5", "- 1 - 1 1 . 5 5"),
    ("12 - 5, 12 + 5, 12*5, 12 / 5, 2**5", "12 - 5 12 + 5 12 * 5 12 / 5 2 ** 5"),
    ("x != y, !x && y || z", "x ! = y ! x && y || z"),
    ("$5 5% €5", "$ 5 5 % € 5"),
    ("Great 👍 👎", "great 👍 👎"),
    # and what says nothing
    ("A well-known - and 5-6 days old - case/matter!", "a well known and 5 6 days old case matter"),
    ("# Title\n\n- **one** *two*\n> three\n---\na | b", "title one two three a b"),
]


@pytest.mark.parametrize(("text", "expected"), SIGNS)
def test_signs_that_change_the_meaning_are_words_for_scores(text, expected):
    assert words(text, signs=True) == expected.split()


@given(st.text())
def test_every_letter_and_digit_is_in_a_word_and_case_is_in_none(text):
    found = words(text)
    assert "".join(found) == "".join(words(text.casefold()))
    if found and (letters := re.findall(r"[^\W_]", "".join(found))):
        assert len(letters) >= len(regex.findall(r"[\p{L}\p{Nd}]", text)) / 2  # NFC may join two
    assert utf8_words(text) == [word.encode("utf-8") for word in found]


@given(st.text(st.characters(max_codepoint=0x20C0)))
def test_the_fast_patterns_find_what_the_whole_one_finds(text):
    assert words(f"{text} 房 ") == [*(words(text) if has_words(text) else []), "房"]


def has_words(text):
    return any(re.search(r"[^\W_]", word) for word in words(text))
