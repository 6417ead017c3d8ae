"""Telephone numbers: with a country code, written as people write them, or behind a word."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneMetadata, PhoneNumber

from stages.preprocess.numbers import named

Span = tuple[int, int]

_START = r"(?<![\w.+/-].)(?<!\d[, :].)"  # behind the first character: no part of another number
_END = r"(?!(?!x\d)[\w@]|[.,/:-]\d| \d)"
_INTERNATIONAL = re.compile(
    r"(?:\+(?<![\w+].)|00(?<![\w.+]..))[1-9](?:[ ().\-/\u2011]{0,3}\d){6,14}(?![\w@])"
)
_SEPARATED = re.compile(  # an area code in parentheses, a trunk 0, or three groups as in America
    r"(?:\(\d{2,5}\) ?\d{2,5}(?:[ .-]?\d{2,5}){0,3}"
    rf"|0{_START}[1-9]\d{{0,3}}(?:[ ./-]\d{{2,8}}){{1,4}}"
    rf"|\d{_START}(?:[ .-]?\(\d{{3}}\) ?|(?:[ .-]\d)?\d\d[ .-])\d{{3}}[ .-]\d{{4}}){_END}"
)
_AMERICAN = re.compile(r"(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}([.-]))\d{3}[.-]\d{4}")
_GROUPED = re.compile(rf"\d{_START}(?:\d{{0,4}}(?:[ .-]\d{{2,5}}){{1,4}}|\d{{8,11}}){_END}")
_DATE = re.compile(r"(?:\d{4}([-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2\d{4})(?: \d{1,4})?")
_THOUSANDS = re.compile(r"\d{1,3}(?:([ .])\d{3})(?:\1\d{3})*")
_WORDS = re.compile(
    r"(?i)(?:\b|_)(?:tel|tele(?:fon\w*|phone|fax)|phones?|ph|call(?:s|ed|ing)?|ring|dial|mobile|mob|"
    r"cell|fax|whats ?app|sms|texts?|contact|reach|hotline|tél|téléphone|portable|appelez|teléfono|"
    r"móvil|llame|celular|telefone|cellulare|handy|mobil\w*|rufnummer|anruf\w*|durchwahl|tlf|puh|gsm|"
    r"telefoonnummer|bel|тел|телефон\w*)(?:[_ ]?(?:number|no|nr|num))?(?![a-z])"
    r"|电话|電話|携帯|手机|전화"
)
_OTHER_WORDS = re.compile(
    r"(?i)(?:\b|_)(?:ids?|order|invoice|ref\w*|account|acct|case|ticket|isbn|issn|sku|serial|version|"
    r"timestamp|tracking|item|part|product|batch|lot|zip|postcode|vat|ean|gtin|article|model)"
    r"(?:[_ ]?(?:number|no|nr|num|id))?\W{0,4}$"
)


def find_phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Numbers with a country code, those written as in the regions, and those that a word names."""
    places = tuple(regions)
    found = {*_international(text), *_separated(text, places), *_grouped(text, places)}
    end = 0
    for start, stop in sorted(found, key=lambda span: (span[0], -span[1])):
        if start >= end:
            yield start, stop
            end = stop


def _international(text: str) -> Iterator[Span]:
    if "+" not in text and "00" not in text:
        return
    for match in _INTERNATIONAL.finditer(text):
        number = match.group()
        if number.startswith("00"):
            number = "+" + number[2:]
        parsed = _parse(number, None)
        written = re.search(r"[ ().-]", number) or named(text, match.start(), _WORDS)
        if parsed and (
            phonenumbers.is_valid_number(parsed)
            or (written and phonenumbers.is_possible_number(parsed))
        ):
            yield match.span()


def _separated(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    for match in _SEPARATED.finditer(text):
        number = match.group()
        american = _AMERICAN.fullmatch(number) and {"US", "CA"} & {*regions}
        if (american or any(_is_national(number, region) for region in regions)) and not _is_other(
            text, match.start(), number
        ):
            yield match.span()


def _grouped(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    """Digits that only their groups, where the region has no 0 in front, or a word before make a
    telephone number."""
    open_regions = [region for region in regions if _trunk(region) is None]
    word_in_text = None
    for match in _GROUPED.finditer(text):
        number, start = match.group(), match.start()
        if not 7 <= sum(map(str.isdigit, number)) <= 12:
            continue
        if word_in_text is None:  # looked for once, and only where there are such numbers
            word_in_text = _WORDS.search(text) is not None
        valid = not (number.isdigit() or _THOUSANDS.fullmatch(number)) and any(
            _is_national(number, region) for region in open_regions
        )
        word = word_in_text and named(text, start, _WORDS)
        valid = valid or (word and any(_is_possible(number, region) for region in regions))
        if valid and not _is_other(text, start, number):
            yield match.span()


def _is_other(text: str, start: int, number: str) -> bool:
    if _DATE.fullmatch(number):
        return True
    return _OTHER_WORDS.search(text[max(0, start - 24) : start]) is not None


@lru_cache(4096)
def _parse(number: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None


def _is_national(number: str, region: str) -> bool:
    """Valid in a region, with the 0 in front where the region dials one; then its length is enough,
    as new and fictional areas are in no list."""
    if _trunk(region) == "0" and not number.startswith(("0", "(")):
        return False
    parsed = _parse(number, region)
    if parsed is None or phonenumbers.is_valid_number(parsed):
        return parsed is not None
    trunk = number.startswith("0") and 10 <= sum(map(str.isdigit, number)) <= 11
    return trunk and _trunk(region) == "0" and phonenumbers.is_possible_number(parsed)


def _is_possible(number: str, region: str) -> bool:
    if number.isdigit():
        return True  # of nine to twelve digits; a list of them would take the parser long
    parsed = _parse(number, region)
    return parsed is not None and phonenumbers.is_possible_number_with_reason(parsed) in (
        phonenumbers.ValidationResult.IS_POSSIBLE,
        phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY,
    )


@lru_cache
def _trunk(region: str) -> str | None:
    metadata = PhoneMetadata.metadata_for_region(region)
    return metadata.national_prefix if metadata else None
