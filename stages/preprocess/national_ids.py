"""Identity, social security and tax numbers of persons: by their form and check digits."""

import re
from collections.abc import Callable, Iterator

from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.us import itin, ssn

from stages.preprocess.numbers import CONTEXT, Span

Valid = Callable[[str], bool]
_END = r"(?![\w@]|[-.,]\d)"

# The form that people write, and how it is proved. python-stdnum knows the rules and their sources.
_FORMS: tuple[tuple[str, Valid], ...] = (
    (r"\d{3}-\d\d-\d{4}", lambda n: ssn.is_valid(n) or itin.is_valid(n)),
    (r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", bool),
    (r"\d{8}-?[A-HJ-NP-TV-Z]", dni.is_valid),
    (r"[XYZ]-?\d{7}-?[A-Z]", nie.is_valid),
    (r"[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]", codicefiscale.is_valid),
    (r"[12] \d\d \d\d \d[\dAB] \d{3} \d{3} \d\d", nir.is_valid),
    (r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),
    (r"[1-9]\d{16}[\dX]", ric.is_valid),
    (r"[A-Z][AEIOUX][A-Z]{2}\d{6}[HMX][A-Z]{5}[A-Z\d]\d", curp.is_valid),
    (r"\d{6}[-+]\d{4}|\d{8}-\d{4}", personnummer.is_valid),
    (r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", hetu.is_valid),
    (r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", nn.is_valid),
    (r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),
)
# Forms that any number could have, with the words of which one must stand before them.
_NAMED_FORMS: tuple[tuple[str, Valid, str], ...] = (
    (r"\d{3} \d\d \d{4}|\d{9}", ssn.is_valid, r"ssn|social security|sozial\w+"),
    (r"\d{3} ?\d{3} ?\d{4}", nhs.is_valid, r"nhs"),
    (r"\d{3}[ -]?\d{3}[ -]?\d{3}", sin.is_valid, r"sin|social insurance|nas"),
    (r"[12]\d{5}[\dAB]\d{8}", nir.is_valid, r"nir|sécurité sociale|insee|nss"),
    (r"\d{11}", cpf.is_valid, r"cpf"),
    (r"[2-9]\d{3} ?\d{4} ?\d{4}", aadhaar.is_valid, r"aadhaar|aadhar|uidai|uid"),
    (r"[A-Z]{5}\d{4}[A-Z]", pan.is_valid, r"pan|income tax|permanent account"),
    (r"\d{6}-?\d{4}", cpr.is_valid, r"cpr\w*|personnummer"),
    (r"\d{11}", pesel.is_valid, r"pesel"),
    (r"\d{2} ?\d{3} ?\d{3} ?\d{3}", idnr.is_valid, r"steuer\w*|idnr|tax id"),
    (r"\d{9}", bsn.is_valid, r"bsn|burgerservicenummer|sofinummer"),
)
_SURE = [(re.compile(rf"(?:{form}){_END}"), valid) for form, valid in _FORMS]
_ANY_SURE = re.compile(rf"(?:{'|'.join(form for form, _ in _FORMS)}){_END}")
_NAMED = [
    (re.compile(rf"(?:{form}){_END}"), valid, re.compile(rf"(?i)\b(?:{words})(?![a-z])"))
    for form, valid, words in _NAMED_FORMS
]
_ANY_WORD = re.compile(rf"(?i)\b(?:{'|'.join(words for _, _, words in _NAMED_FORMS)})(?![a-z])")
# How each of these forms starts: one pass over a text that has none of them.
_START = re.compile(
    r"[A-Z\d](?<![\w.+-].)(?=[A-Z] ?\d\d ?\d\d|-?\d{7}|[A-Z]{3,5}\d\d|\d{7}|\d{5}[-+A-FU-Y]"
    r"|\d\d-\d\d-|\d\d \d[\d ]{3}|\d\d\.\d{3}\.|\d\.\d\d\.\d\d-|56\.\d{4}\.|\d\d-\d{3}-"
    r"|\d{3} \d{4} \d{4}| \d\d \d\d |\d \d{3} \d{3} \d)"
)


def find_national_ids(text: str) -> Iterator[Span]:
    """Identity, social security and tax numbers of persons in some twenty countries."""
    end, words = 0, None
    for match in _START.finditer(text):
        start = match.start()
        if words is None:  # looked for once, and only where there are such numbers
            words = _ANY_WORD.search(text) is not None
        if start >= end and (found := _sure(text, start) or (words and _named(text, start))):
            yield start, found
            end = found


def _sure(text: str, start: int) -> int | None:
    if not _ANY_SURE.match(text, start):
        return None
    ends = (_end(text, start, form, valid) for form, valid in _SURE)
    return next((end for end in ends if end), None)


def _named(text: str, start: int) -> int | None:
    for form, valid, words in _NAMED:
        if words.search(text, max(0, start - CONTEXT), start) and (
            found := _end(text, start, form, valid)
        ):
            return found
    return None


def _end(text: str, start: int, form: re.Pattern[str], valid: Valid) -> int | None:
    """Where a valid number of a form ends that starts at a place, None where there is none."""
    match = form.match(text, start)
    try:
        return match.end() if match and valid(match.group().replace(" ", "")) else None
    except (LookupError, ValueError, TypeError):  # python-stdnum, where its own tables have a gap
        return None
