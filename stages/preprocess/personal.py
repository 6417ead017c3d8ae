"""Personal data and secrets in a text: found, then kept, masked, or a reason to drop it."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

import phonenumbers

from finetune.params import Preprocess
from stages.preprocess.documents import Rejected

Span = tuple[int, int]

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9][\w.+%-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])"
)
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_DIGITS = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")  # what could be a telephone number
_KEYS = re.compile(  # as published by the services that issue them
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{0,8000}?(?:-----END [A-Z ]{0,30}KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_\w{22,255}\b"  # GitHub
    r"|\bglpat-[\w-]{20,64}\b"  # GitLab
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,250}\b"  # Slack
    r"|\bAIza[\w-]{35}\b"  # Google
    r"|\bhf_[A-Za-z0-9]{30,64}\b"  # Hugging Face
    r"|\bsk-(?:ant-|proj-)?[\w-]{32,200}\b"  # OpenAI, Anthropic
    r"|\b[sr]k_live_[A-Za-z0-9]{16,128}\b"  # Stripe
    r"|\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}\b"  # JSON web tokens
)
_KEY_MARKS = (
    *("PRIVATE KEY", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "xox", "AIza", "hf_", "sk-", "k_live_", "eyJ"),
)


def treat(text: str, settings: Preprocess, masked: dict[str, int]) -> str:
    """The text with personal data masked as params say; counts what it masks in `masked`.

    Raises Rejected where params say that such a text is dropped.
    """
    for name, policy, find in (
        ("key", settings.keys, _keys),
        ("email", settings.emails, _emails),
        ("card", settings.cards, _cards),
        ("phone", settings.phones, partial(_phones, regions=settings.phone_regions)),
    ):
        spans = list(find(text)) if policy != "keep" else []
        if spans and policy == "drop":
            raise Rejected(f"has_{name}")
        if spans:
            masked[name] = masked.get(name, 0) + len(spans)
            text = _mask(text, spans, f"[{name}]")
    return text


def luhn(digits: str) -> bool:
    """Whether a number carries a valid check digit (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (2 if at % 2 else 1) for at, d in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def _keys(text: str) -> Iterator[Span]:
    if any(mark in text for mark in _KEY_MARKS):  # twenty times as fast as the pattern
        yield from (match.span() for match in _KEYS.finditer(text))


def _emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _cards(text: str) -> Iterator[Span]:
    """Numbers of 13 to 19 digits with a valid check digit and more than one different digit."""
    for match in _CARD.finditer(text) if _DIGITS.search(text) else ():
        digits = re.sub(r"\D", "", match.group())
        if luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def _phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Numbers with a country code, and those written as in the regions of params."""
    if not _DIGITS.search(text):  # the matcher takes a hundred times as long
        return
    found = {
        (match.start, match.end)
        for region in (*regions, None)
        for match in phonenumbers.PhoneNumberMatcher(text, region)
    }
    end = 0
    for start, stop in sorted(found):
        if start >= end:
            yield start, stop
            end = stop


def _mask(text: str, spans: list[Span], mask: str) -> str:
    for start, end in reversed(spans):
        text = text[:start] + mask + text[end:]
    return text
