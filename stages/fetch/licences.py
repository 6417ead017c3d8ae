"""The licence that a page says it is under, from markup made for saying so.

Read are rel=license (links and HTTP's Link header), schema.org `license` in JSON-LD and microdata,
RDFa's dc:, cc: and schema: properties, and meta elements. A licence of a picture or a film in the
page is not the page's.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import lxml.html

MEDIA = ("ImageObject", "VideoObject", "AudioObject", "MediaObject", "Photograph", "MusicRecording")
META = ("dcterms.license", "dc.license", "dcterms.rights", "dc.rights", "license", "licence")
INSIDE = ("@graph", "mainEntity", "mainEntityOfPage")  # other parts have licences of their own
_NAME = re.compile(r"(CC0|CC-BY(-SA|-NC|-ND)*|PDM|ODbL|GFDL)-\d\.\d(-[\w-]+)?", re.IGNORECASE)
_CC = re.compile(r"/licenses/([a-z-]+)/(\d\.\d)(?:/([a-z-]{2,8}))?")
_HOSTS = ("creativecommons.org", "opendatacommons.org", "nationalarchives.gov.uk", "gnu.org")
_ADDRESSES = {
    "/publicdomain/zero/1.0": "CC0-1.0",
    "/publicdomain/mark/1.0": "PDM-1.0",
    "/licenses/odbl": "ODbL-1.0",
    "/licenses/odbl/1-0": "ODbL-1.0",
    "/licenses/by": "ODC-By-1.0",
    "/licenses/by/1-0": "ODC-By-1.0",
    "/licenses/pddl": "PDDL-1.0",
    "/licenses/pddl/1-0": "PDDL-1.0",
    "/doc/open-government-licence/version/3": "OGL-UK-3.0",
    "/licenses/fdl-1.3": "GFDL-1.3",
    "/copyleft/fdl": "GFDL-1.3",
}


def find_licences(html: str, url: str, link_header: str = "") -> dict[str, str]:
    """Licence -> where it was found, for every licence that the page names.

    Known licences are named as SPDX does (CC-BY-4.0), others by their address or text.
    """
    found: dict[str, str] = {}
    root = _parse(html)
    sources = [("Link header", _link_header(link_header))]
    if root is not None:
        base = root.xpath("string(//base/@href)")
        url = _joined(url, base)
        sources += [("rel=license", _links(root)), ("JSON-LD", _json_ld(root))]
        sources += [("microdata or RDFa", _properties(root)), ("meta", _meta(root))]
    for how, values in sources:
        for value in values:
            if value.strip():
                found.setdefault(spdx(value, url), how)
    return found


def spdx(value: str, url: str = "") -> str:
    """The SPDX name of a licence given as an address or a name; the value itself if unknown."""
    value = " ".join(value.split())[:300]
    name = value.replace(" ", "-")
    if _NAME.fullmatch(name):
        return name.upper().replace("ODBL", "ODbL")
    if "/" not in value:
        return value
    try:
        address = (
            urljoin(url, value) if value.startswith((".", "/", "http")) else f"https://{value}"
        )
        return _known(address) or address
    except ValueError:  # http://[
        return value


def _known(address: str) -> str | None:
    parts = urlsplit(address)
    path = re.sub(
        r"/(deed|legalcode)(\.[\w-]+)?$|\.(html|txt)$", "", parts.path.lower().rstrip("/")
    )
    if (parts.hostname or "").removeprefix("www.") not in _HOSTS:
        return None
    if cc := _CC.fullmatch(path):
        ported = "" if cc[3] in (None, "en") else f"-{cc[3]}"
        return f"CC-{cc[1]}-{cc[2]}{ported}".upper()
    return _ADDRESSES.get(path)


def _joined(url: str, base: str) -> str:
    try:
        return urljoin(url, base)
    except ValueError:
        return url


def _parse(html: str) -> Any:
    try:
        return lxml.html.document_fromstring(html.encode("utf-8", "replace"), parser=_parser())
    except (lxml.etree.LxmlError, ValueError):
        return None


def _parser() -> lxml.html.HTMLParser:
    return lxml.html.HTMLParser(encoding="utf-8", recover=True, no_network=True)


def _link_header(value: str) -> Iterator[str]:
    for link in re.finditer(r"<([^>]*)>([^<]*)", value):
        if re.search(r";\s*rel\s*=\s*\"?[^\";]*\blicense\b", link[2], re.I):
            yield link[1]


def _links(root: Any) -> Iterator[str]:
    """`<a rel=license>` and `<link rel=license>`, but not in a figure: that is its picture's."""
    for element in root.xpath("//a[@rel]|//link[@rel]|//area[@rel]"):
        names = element.get("rel").lower().split()
        if ("license" in names or "cc:license" in names) and not _of_a_picture(element):
            yield element.get("href", "")


def _of_a_picture(element: Any) -> bool:
    if next(element.iterancestors("figure"), None) is not None:
        return True
    scope = next(
        (each for each in element.iterancestors() if each.get("itemscope") is not None), None
    )
    return scope is not None and any(kind in scope.get("itemtype", "") for kind in MEDIA)


def _json_ld(root: Any) -> Iterator[str]:
    for script in root.xpath("//script[contains(@type, 'ld+json')]"):
        try:
            yield from _licenses_of(json.loads(script.text_content(), strict=False))
        except (ValueError, RecursionError):
            continue  # a page with broken JSON-LD names no licence there


def _licenses_of(value: Any) -> Iterator[str]:
    """The `license` of the things that a JSON-LD value describes, except pictures and films."""
    if isinstance(value, list):
        for each in value:
            yield from _licenses_of(each)
    if not isinstance(value, dict) or any(kind in str(value.get("@type")) for kind in MEDIA):
        return
    for key, each in value.items():
        if re.split("[:/#]", key)[-1] == "license":
            yield from _names_of(each)
        elif key in INSIDE:
            yield from _licenses_of(each)


def _names_of(value: Any) -> Iterator[str]:
    """A licence is an address, or a CreativeWork with one."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            each = each.get("url") or each.get("@id") or each.get("name")
        if isinstance(each, str):
            yield each


def _properties(root: Any) -> Iterator[str]:
    for element in root.xpath("//*[@itemprop or @property]"):
        names = f"{element.get('itemprop', '')} {element.get('property', '')}".lower().split()
        is_licence = any(re.split("[:/#]", name)[-1] in ("license", "licence") for name in names)
        if is_licence and not _of_a_picture(element):
            named = (element.get(key) for key in ("href", "resource", "content"))
            yield next(filter(None, named), element.text_content())


def _meta(root: Any) -> Iterator[str]:
    for element in root.xpath("//meta[@name]"):
        if element.get("name").lower() in META:
            yield element.get("content", "")
