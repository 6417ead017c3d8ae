"""Whether a page may be used: what it says about robots, about mining, and about its licence."""

from dataclasses import dataclass

from scrapy.http import HtmlResponse, Response

from finetune.params import Web
from stages.fetch.captures import is_html
from stages.fetch.licences import find_licences, spdx

NOT_FOR_US = ("noindex", "none", "noai")
FOLLOW_NOTHING = ("nofollow", "none")


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
    if any(word in NOT_FOR_US for word in robots_words(response)):
        return "the page itself forbids robots"
    if _is_reserved(response):
        return "text and data mining reserved"
    return _licence(response, source)


def robots_words(response: HtmlResponse) -> list[str]:
    """What the page tells robots: X-Robots-Tag and `<meta name=robots>`."""
    said = [value.decode("latin-1") for value in response.headers.getlist("X-Robots-Tag")]
    said += _metas(response, "robots")
    return " ".join(said).replace(",", " ").lower().split()


def _metas(response: HtmlResponse, name: str) -> list[str]:
    path = (
        "//meta[translate(@name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')=$name]"
    )
    return response.xpath(f"{path}/@content", name=name).getall()


def _is_reserved(response: HtmlResponse) -> bool:
    """The reservation of the TDM Reservation Protocol (W3C community group)."""
    header = response.headers.get("tdm-reservation", b"").decode("latin-1")
    return "1" in [header.strip(), *_metas(response, "tdm-reservation")]


def _licence(response: HtmlResponse, source: Web) -> Kept | str:
    """The page's own licence, if all that it names are allowed; if it names none, the declared."""
    allowed = {spdx(each) for each in source.allowed_licenses}
    header = b", ".join(response.headers.getlist("Link")).decode("latin-1")
    found = find_licences(response.text, response.url, header)
    for each in sorted(found):
        if each not in allowed:
            return f"licence not allowed: {each}"
    if found:
        how = ", ".join(sorted(set(found.values())))
        return Kept(" AND ".join(sorted(found)), f"{response.url} ({how})")
    if source.declared_license:
        return Kept(source.declared_license, source.evidence or "")
    return "no licence found"
