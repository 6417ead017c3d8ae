"""Texts are written one way, by their kind; what was broken is mended and counted."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.preprocess.clean import normalise
from stages.preprocess.documents import Rejected

ODD = st.text(
    st.sampled_from("a \t\n\r\x0b\x0c\x00\x80\x85\x92\x9d\xe2\x80\xc3\xa9\xad\ufeffé\u200d")
)


@settings(max_examples=300, deadline=None)
@given(st.text() | ODD, st.sampled_from(["text", "code", "none"]))
def test_normalising_twice_changes_nothing(text, kind):
    try:
        once = normalise(text, kind)
    except Rejected:
        return
    mended = Counter()
    assert normalise(once, kind, mended) == once
    assert not mended or kind == "none"


MENDED = [
    ("5\x966 days", "5–6 days", {"windows_1252": 1}),
    ("the lawyer\x92s \x93fee\x94 \x85", "the lawyer’s “fee” …", {"windows_1252": 4}),
    ("a\x81b\x9d", "ab", {"undefined": 2}),
    ("First\x0bSecond\x0cThird\u2028Fourth", "First\nSecond\nThird\nFourth", {"line_end": 3}),
    ("co\u00adoperate\u200b\ufeff\x00", "cooperate", {"invisible": 4}),
    ("don\xe2\x80\x99t \xc3\xa9t\xc3\xa9", "don’t été", {"utf8_as_latin1": 1}),
    ("\x93don\xe2\x80\x99t\x94", "“don’t”", {"utf8_as_latin1": 1, "windows_1252": 2}),
    ("KÄ\x94 \x93Ä", "KÄ” “Ä", {"windows_1252": 2}),
    # and what is not broken
    ("Ã© â€™ é", "Ã© â€™ é", {}),
    ("می\u200cخواهم 👩\u200d🚀 क\u094d\u200dष", "می\u200cخواهم 👩\u200d🚀 क\u094d\u200dष", {}),
    ("a\r\nb\rc", "a\nb\nc", {}),
]


@pytest.mark.parametrize(("text", "expected", "counts"), MENDED)
def test_what_was_broken_is_mended_and_counted(text, expected, counts):
    mended = Counter()
    assert normalise(text, "text", mended) == expected
    assert mended == counts


CODE = '\ufeff\n    def f():\r\n\tx = """a\n\n\n\nb  \n"""\n\x0c\n    e\u0301\u00a0= 1\n\n'
CODE_CLEAN = '    def f():\n\tx = """a\n\n\n\nb  \n"""\n\x0c\n    e\u0301\u00a0= 1'


def test_code_keeps_its_first_indentation_and_the_blank_lines_in_its_strings():
    assert normalise(CODE, "code") == CODE_CLEAN
    assert normalise("# the lawyer\x92s\x00 fee", "code") == "# the lawyer’s fee"


@pytest.mark.parametrize("kind", ["text", "code", "none"])
def test_half_a_surrogate_pair_is_rejected_in_any_kind(kind):
    with pytest.raises(Rejected, match="broken_unicode"):
        normalise("a \ud800 b", kind)


def test_without_normalisation_a_text_stays_as_it_is():
    assert normalise(" a\x92\r\n\n\n\n ", "none") == " a\x92\r\n\n\n\n "


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("cafe\u0301", "café"),
        ("a\u00a0b\u2009c", "a b c"),
        ("a  \n\n\n\n  b\t\n", "a\n\n  b"),
        ("if x:\n    y\n\n\tz", "if x:\n    y\n\n\tz"),
    ],
)
def test_texts_are_written_one_way(text, clean):
    assert normalise(text) == clean


def test_a_hundred_thousand_spaces_take_no_time():
    assert normalise("a" + " \t" * 100_000 + "b")[-1] == "b"
