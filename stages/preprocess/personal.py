"""Personal data and secrets in a text: found, then kept, masked, or a reason to drop it."""

import re
from collections.abc import Iterator
from functools import partial

from finetune.params import Preprocess
from stages.preprocess.documents import Rejected
from stages.preprocess.keys import find_keys
from stages.preprocess.national_ids import find_national_ids
from stages.preprocess.numbers import find_cards, find_ibans, find_ips
from stages.preprocess.phones import find_phones

Span = tuple[int, int]

_EMAIL = re.compile(
    r"(?<![\w.+%-])(?:[\w.]{1,32}')?[^\W_][\w.+%-]{0,63}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w@])"
)
# In every number below, and in few other texts, so that most are gone through once: five digits
# with no more than marks and a letter between them, or the least that the others have.
_NUMBER = re.compile(
    r"\d(?:(?:[^\w\n]{0,3}[A-Za-z]?\d){4}"
    r"|\.\d{1,3}\.\d|[0-9A-Fa-f]{3}:[0-9A-Fa-f:]"  # IP addresses
    r"|\d(?<=\b[A-Za-z]{2}\d\d)(?:[ -]?[A-Za-z0-9]){11}"  # IBANs, whose account may be letters
    r"|\d{3}(?<=[A-Z]{5}\d{4})[A-Z]"  # India's PAN
    r"|\) ?\d\d)"  # telephones, of four digits in a few regions
)


def treat(text: str, settings: Preprocess, masked: dict[str, int]) -> str:
    """The text with personal data masked as params say; counts what it masks in `masked`.

    Raises Rejected where params say that such a text is dropped.
    """
    finders = [("key", settings.keys, find_keys), ("email", settings.emails, _emails)]
    if _NUMBER.search(text):
        finders += [
            ("iban", settings.ibans, find_ibans),
            ("card", settings.cards, find_cards),
            ("national_id", settings.national_ids, find_national_ids),
            ("ip", settings.ips, find_ips),
            ("phone", settings.phones, partial(find_phones, regions=settings.phone_regions)),
        ]
    for name, policy, find in finders:
        spans = list(find(text)) if policy != "keep" else []
        if spans and policy == "drop":
            raise Rejected(f"has_{name}")
        if spans:
            masked[name] = masked.get(name, 0) + len(spans)
            text = _mask(text, spans, f"[{name}]")
    return text


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _mask(text: str, spans: list[Span], mask: str) -> str:
    for start, end in reversed(spans):
        text = text[:start] + mask + text[end:]
    return text
