"""What is masked in the labelled lines of masks.tsv, and what must not be.

A line holds what a person would mask as ‹kind:text›; ¦ breaks what looks like a key, so that no
scanner of secrets takes the file for a leak.
"""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.preprocess import personal, phones
from stages.preprocess.personal import treat

KINDS = ("key", "email", "iban", "card", "national_id", "ip", "phone")
_MARKED = re.compile(r"‹(\w+):([^›]*)›")
_LINES = Path(__file__).with_name("masks.tsv").read_text(encoding="utf-8").splitlines()
POLICIES = ("keys", "emails", "ibans", "cards", "national_ids", "ips", "phones")
MASK = SimpleNamespace(**dict.fromkeys(POLICIES, "mask"), phone_regions=["US", "GB"])
ABROAD = SimpleNamespace(**vars(MASK) | {"phone_regions": ["US", "GB", "AT", "DE", "TK"]})


def _labelled():
    """Each line as it comes and as it should leave."""
    for line in _LINES:
        text = _MARKED.sub(lambda match: match[2], line).replace("¦", "")
        yield text, _MARKED.sub(lambda match: f"[{match[1]}]", line)


def _masks(text):
    return Counter(re.findall(rf"\[({'|'.join(KINDS)})\]", text))


def scores():
    """Precision, recall and number of each kind over the lines."""
    hits, found, wanted = Counter(), Counter(), Counter()
    for text, expected in _labelled():
        got = treat(text, MASK, {})
        hits += Counter({kind: n for kind, n in _masks(got).items() if got == expected})
        found, wanted = found + _masks(got), wanted + _masks(expected)
    return {
        kind: (hits[kind] / found[kind], hits[kind] / wanted[kind], wanted[kind]) for kind in KINDS
    }


def test_precision_and_recall_hold_on_the_labelled_lines():
    assert len(_LINES) >= 400
    for kind, (precision, recall, number) in scores().items():
        assert number >= 15, kind
        assert precision >= 0.97 and recall >= 0.97, (kind, precision, recall)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_masked_and_counted(kind):
    text, expected = next(each for each in _labelled() if _masks(each[1]) == {kind: 1})
    counts = {}
    assert treat(text, MASK, counts) == expected
    assert counts == {kind: 1}


_PARTS = st.sampled_from(
    [*"0123456789+-.:()/ \n\u2011ABXab", "IBAN", "ssn ", "tel ", "pan ", "card "]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PARTS, max_size=40).map("".join), st.sampled_from(list(_labelled())))
@example("to RO07RZBRABCDEFGHIJKLMNOP or KW56 CBKU AAAA AAAA AAAA AAAA AAAA AA", ("", ""))
@example("tel (11) 11, (22) 00", ("", ""))
def test_no_number_is_missed_by_what_decides_where_numbers_are_looked_for(text, labelled):
    """Also in the shortest number of each kind, and in what only looks like one."""
    for each in (text, labelled[0], f"{labelled[0]}\n{text}"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(personal, "_NUMBER", re.compile(""))
            everywhere = treat(each, ABROAD, {})
        assert treat(each, ABROAD, {}) == everywhere


def test_a_long_private_key_is_one_mask():
    text = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n!"
    assert treat(text, MASK, {}) == "[key]\n!"


def test_phones_of_other_regions_are_known_where_params_name_them():
    text = "Llame al 912 345 678 por la tarde; 12 345 678 habitantes, 01 42 68 53 00 à Paris"
    spain = SimpleNamespace(**{**vars(MASK), "phone_regions": ["ES", "FR"]})
    assert treat(text, spain, {}) == (
        "Llame al [phone] por la tarde; 12 345 678 habitantes, [phone] à Paris"
    )


def test_tables_of_numbers_are_not_given_to_the_parser_of_telephone_numbers(monkeypatch):
    parsed = []
    monkeypatch.setattr(phones, "_parse", lambda number, region: parsed.append(number))
    table = "\n".join(
        " | ".join(f"{row * 37 % 9999} 12.{n} 2{row:05d}" for n in range(9)) for row in range(200)
    )
    treat(table, MASK, {})
    assert len(parsed) < 20  # it takes a hundred times as long as looking


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("0123456789 -.+:/()ABXdet=@\n"), max_size=200))
def test_any_text_is_treated(text):
    assert isinstance(treat(text, MASK, {}), str)
