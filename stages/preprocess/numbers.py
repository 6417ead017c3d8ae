"""Numbers of accounts and machines: payment cards, IBANs, IP addresses.

A check digit alone proves little: one number in ten has it by chance. So each must also have the
form that its issuer gives it, or stand behind a word that names it.
"""

import ipaddress
import re
from collections.abc import Iterator

from stdnum import iban, luhn

Span = tuple[int, int]

CONTEXT = 40  # characters before a number in which a word may name it
_CARD = re.compile(  # together, or in the groups that are embossed
    r"[2-68](?<![\w.+-].)(?<!\b0,.)(?<!\d[ -].)"
    r"(?:\d{11,18}|\d{3}([ .-])\d{4}\1\d{4}\1\d{4}|\d{3}([ .-])\d{6}\2\d{4,5})"
    r"(?![\w@]|\.\d|-\w| \d{4}\b)"
)
# Prefix and lengths by issuer: ISO/IEC 7812-1, and what each of them publishes.
_ISSUERS = re.compile(
    r"4\d{15}"  # Visa
    r"|(?:5[1-5]|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12,14}(?<=^.{16})"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|3(?:0[0-5]|095|[689]\d)\d{10,12}(?<=^.{14})"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14}|81\d{14}|220[0-4]\d{12}"  # UnionPay, Mir
)
# Lengths and prefixes that many other numbers have as well: only behind a word.
_RARE_ISSUERS = re.compile(
    r"4\d{12}|4\d{18}|62\d{15,17}|6(?:011|5\d\d|4[4-9]\d)\d{15}|36\d{12,17}|35\d{17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}|(?:60|82|508)\d{13,14}(?<=^.{16})"
)
_CARD_WORDS = re.compile(
    r"(?i)\b(?:card|cc|visa|master ?card|amex|american express|discover|maestro|jcb|diners|"
    r"union ?pay|pan|karte|kreditkarte\w*|carte|tarjeta|carta|cartão|credit|debit)(?![a-z])"
)
_OTHER_WORDS = re.compile(
    r"(?i)(?:\b|_)(?:ids?|orders?|tracking|parcel|shipment|invoice|ref|reference|serial|isbn|ean|"
    r"gtin|upc|sku|timestamp|ts|imei|iccid|barcode|ticket|txn|transaction|session|user_?id|uid|batch|lot|"
    r"hash|seed|item|asin|tweet|post|record|row|case|device|meter|vin|asset|bestellung|rechnung|"
    r"sendung|commande|pedido)\W{0,3}(?:no|nr|number|num)?[\W_]{0,4}$"
)
_IBAN = re.compile(r"\d\d(?<=\b[A-Za-z]{2}\d\d)(?:[ -]?[A-Za-z0-9]{1,4}){3,12}(?![A-Za-z0-9])")
_IPV4 = re.compile(r"\d(?<![\w.+-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\w)")
_IPV6 = re.compile(r"[23][0-9A-Fa-f]{3}(?<![\w:.]....):[0-9A-Fa-f:]{2,34}(?![\w:]|\.\d)")
_IP_WORDS = re.compile(
    r"(?i)\b(?:ips?|ipv4|addr\w*|adresse|host|client|peer|server|remote|ping|ssh|login|visitor|"
    r"logged in|connect\w*|dns|src|dst|gateway|forwarded|https?)\b\W"
)
_VERSION_WORDS = re.compile(
    r"(?i)(?:\bv|\b(?:version|ver|release|build|firmware|driver|section|chapter|clause|article|"
    r"abschnitt|kapitel|oid|update|upgrade[ds]?|patch|from|to))[^\w\n]{1,3}$|[=<>~^]=? ?$|§ ?$"
)
_DOCUMENTATION = [  # RFC 5737 and 3849: stand for public ones
    ipaddress.ip_network(each)
    for each in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]


def named(text: str, start: int, words: re.Pattern[str]) -> bool:
    """Whether one of the words stands shortly before a place of a text."""
    return words.search(text, max(0, start - CONTEXT), start) is not None


def find_cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards: prefix and length of an issuer, and its check digit."""
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        usual = _ISSUERS.fullmatch(digits)
        if not (usual or _RARE_ISSUERS.fullmatch(digits)) or not luhn.is_valid(digits):
            continue
        if len(set(digits)) == 1 or _is_other(text, match.start()):
            continue
        if usual or named(text, match.start(), _CARD_WORDS):
            yield match.span()


def find_ibans(text: str) -> Iterator[Span]:
    """International bank account numbers (ISO 13616): country, length and check digits."""
    for match in _IBAN.finditer(text):
        start, end = match.start() - 2, match.end()
        while end - start >= 15:
            if iban.is_valid(text[start:end], check_country=False):
                yield start, end
                break
            end = max(text.rfind(" ", start, end), text.rfind("-", start, end))


def find_ips(text: str) -> Iterator[Span]:
    """Public addresses of IP versions 4 and 6. Those of loops and private networks name nobody."""
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            if _is_public(match.group()) and not _is_version(text, match):
                yield match.span()
    if ":" in text:
        for match in _IPV6.finditer(text):
            end = match.end() - (match.group().endswith(":") and not match.group().endswith("::"))
            if _is_public(text[match.start() : end]):
                yield match.start(), end


def _is_other(text: str, start: int) -> bool:
    """Whether the word right before says that it is a number of something else."""
    return _OTHER_WORDS.search(text[max(0, start - CONTEXT) : start]) is not None


def _is_public(address: str) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return (ip.is_global and not ip.is_multicast) or any(ip in each for each in _DOCUMENTATION)


def _is_version(text: str, match: re.Match[str]) -> bool:
    """Four small numbers are one of software or of a chapter, unless a word speaks of a network."""
    before = text[max(0, match.start() - CONTEXT) : match.start()]
    if re.match(r":\d|/\d", text[match.end() : match.end() + 2]) or before.endswith(("://", "@")):
        return False
    if re.search(r"(?i)(?:\bv|version|release|firmware|section|build|§)[^\w\n]{0,3}$", before):
        return True
    if _IP_WORDS.search(before + " "):
        return False
    numbers = [int(each) for each in match.group().split(".")]
    small = numbers[0] < 20 and max(numbers) < 100
    return small or _VERSION_WORDS.search(before) is not None
