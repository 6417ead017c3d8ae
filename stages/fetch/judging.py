"""Whether a page may be used: what it says about robots, about mining, and about its licence."""

import re
from dataclasses import dataclass

from scrapy.http import HtmlResponse, Response

from finetune.params import Web
from finetune.web import is_html
from stages.fetch.licences import find_licences, spdx
from stages.fetch.reservations import AGENT, TRAINING_CRAWLERS, reserves_training

NOT_FOR_US = ("noindex", "none")
RESERVED = ("noai", "noimageai", "noml", "notrain", "noaitraining", "noarchive")
DIRECTIVES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
FOLLOW_NOTHING = ("nofollow", "none")
REVIEW = "licence of a part of the page only, left for review"


@dataclass(frozen=True)
class Kept:
    """A page that may be used: its licence, and what proves it."""

    license: str
    evidence: str


def judge(response: Response, source: Web) -> Kept | str:
    """A Kept, or the reason why not. robots.txt was asked before; the page has a say too."""
    if response.status != 200:
        return f"status {response.status}"
    kind = response.headers.get("Content-Type", b"text/html").decode("latin-1")
    if is_html(kind) and not response.body.strip():
        return "empty"
    if not is_html(kind) or not isinstance(response, HtmlResponse):
        return "not HTML"
    words = robots_words(response)
    if any(word in NOT_FOR_US for word in words):
        return "the page itself forbids robots"
    for word in RESERVED:
        if word in words:
            return f"reserved by the page: {word}"
    if _is_reserved(response):
        return "text and data mining reserved"
    if reserves_training(b", ".join(response.headers.getlist("Content-Usage")).decode("latin-1")):
        return "reserved by the page: Content-Usage"
    return _licence(response, source)


def robots_words(response: HtmlResponse) -> list[str]:
    """What the page tells robots like this one, in lower case and without hyphens.

    Read are X-Robots-Tag and `<meta name=...>`, for all robots, for this one and for those that
    collect for training.
    """
    said = [value.decode("latin-1") for value in response.headers.getlist("X-Robots-Tag")]
    said += _metas(response, "x-robots-tag", key="http-equiv")
    said += _metas(response, "robots", AGENT, *map(str.lower, TRAINING_CRAWLERS))
    return [word for value in said for word in _words(value)]


def _words(value: str) -> list[str]:
    """`noai, no-archive` as words; of `otherbot: noindex` none, because it is another robot's."""
    agent, found = "", []
    for part in re.split(r"[,;]", value.lower()):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in DIRECTIVES:
            agent, part = name.strip(), rest
        if agent in ("", "robots", "*", AGENT, *map(str.lower, TRAINING_CRAWLERS)):
            found += [re.sub(r"[-_]", "", word) for word in (part.split() or [""])]
            found.append(re.sub(r"[-_\s]", "", part))  # "no ai"
    return found


def _metas(response: HtmlResponse, *names: str, key: str = "name") -> list[str]:
    """The contents of the meta elements of these names, which are in lower case."""
    said = (meta.attrib for meta in response.xpath(f"//meta[@{key} and @content]"))
    return [each["content"] for each in said if each[key].strip().lower() in names]


def _is_reserved(response: HtmlResponse) -> bool:
    """The reservation of the TDM Reservation Protocol (W3C community group)."""
    header = response.headers.get("tdm-reservation", b"").decode("latin-1")
    return "1" in [header.strip(), *_metas(response, "tdm-reservation")]


def _licence(response: HtmlResponse, source: Web) -> Kept | str:
    """The page's own licence, if all that it names are allowed; if it names none, the declared."""
    allowed = {spdx(each) for each in source.allowed_licenses}
    header = b", ".join(response.headers.getlist("Link")).decode("latin-1")
    found, parts = find_licences(response.text, response.url, header)
    for each in sorted(found):
        if each not in allowed:
            return f"licence not allowed: {each}"
    if found:
        how = ", ".join(sorted(set(found.values())))
        return Kept(" AND ".join(sorted(found)), f"{response.url} ({how})")
    if parts and not (source.declared_license and set(parts) <= allowed):
        return REVIEW
    if source.declared_license:
        return Kept(source.declared_license, source.evidence or "")
    return "no licence found"
