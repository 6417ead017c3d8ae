"""The licence that a page says it is under, from markup made for saying so.

Read are rel=license (links and HTTP's Link header), schema.org `license` in JSON-LD and microdata,
RDFa's dc:, cc: and schema: properties, and meta elements. What stands in the head, in the page's
footer or in an item that is the page speaks for the page; anywhere else it may be a photo's or a
comment's licence, which is told apart.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import lxml.html

from finetune.web import read_json_ld

META = ("dcterms.license", "dc.license", "dcterms.rights", "dc.rights", "license", "licence")
OTHERS = (  # things on a page that may have licences of their own
    *("ImageObject", "VideoObject", "AudioObject", "MediaObject", "Photograph", "MusicRecording"),
    *("Comment", "Review", "Answer", "Quotation", "Person", "Organization"),
)
PARTS = ("figure", "figcaption", "article", "aside", "blockquote", "nav", "picture", "details")
FOOTERS = ("footer", "site-footer", "page-footer", "sitefooter", "colophon", "site-info")
CAPTIONS = ("caption", "credit", "wp-caption")
INSIDE = ("@graph", "mainEntity", "mainEntityOfPage")  # other parts have licences of their own
MAX_DEPTH = 20
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


Named = tuple[str, bool]  # an address or a name, and whether it speaks for the whole page


def find_licences(
    html: str, url: str, link_header: str = ""
) -> tuple[dict[str, str], dict[str, str]]:
    """Licence -> where it was found: those of the page, and those that may be of a part only.

    Known licences are named as SPDX does (CC-BY-4.0), others by their address or text.
    """
    page: dict[str, str] = {}
    parts: dict[str, str] = {}
    sources = [("Link header", _link_header(link_header))]
    if (root := _parse(html)) is not None:
        url = _joined(url, root.xpath("string(//base/@href)"))
        sources += [("rel=license", _links(root)), ("JSON-LD", _json_ld(root))]
        sources += [("microdata or RDFa", _properties(root)), ("meta", _meta(root))]
    for how, found in sources:
        for value, whole in found:
            if value.strip():
                (page if whole else parts).setdefault(spdx(value, url), how)
    return page, parts


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
        parser = lxml.html.HTMLParser(encoding="utf-8", recover=True, no_network=True)
        return lxml.html.document_fromstring(html.encode("utf-8", "replace"), parser=parser)
    except (lxml.etree.LxmlError, ValueError):
        return None


def _link_header(value: str) -> Iterator[Named]:
    for link in re.finditer(r"<([^>]*)>([^<]*)", value):
        if re.search(r";\s*rel\s*=\s*\"?[^\";]*\blicense\b", link[2], re.I):
            yield link[1], True


def _links(root: Any) -> Iterator[Named]:
    for element in root.xpath("//a[@rel]|//link[@rel]|//area[@rel]"):
        names = element.get("rel").lower().split()
        if "license" in names or "cc:license" in names:
            yield element.get("href", ""), _is_of_the_page(element, markup=False)


def _is_of_the_page(element: Any, markup: bool) -> bool:
    """Whether what an element says is said of the whole page.

    In the head, or in a footer that is no part's and reserves nothing; what is marked up as a
    property (`markup`) also elsewhere, if its subject is the page or the one item that is the page.
    """
    around = [element, *element.iterancestors()]
    if any(each.tag == "head" for each in around):
        return True
    items = [each for each in around if each.get("itemscope") is not None]
    parts = [each for each in around if each.tag in PARTS and each not in items]
    if parts or len(items) > 1 or any(map(_is_another_thing, around)):
        return False
    if items:
        return element.get("itemprop") is not None and _is_alone(items[0])
    if markup:
        return not any(each.get("resource") for each in around[1:])
    footer = next(filter(_is_footer, around), None)
    return footer is not None and not re.search(
        r"all\s+rights\s+reserved", footer.text_content(), re.IGNORECASE
    )


def _is_alone(item: Any) -> bool:
    """Whether a page has one item of that type, and one article: else it is a list of several."""
    page = item.getroottree()
    alike = "count(//*[@itemscope and not(@itemprop) and string(@itemtype) = $kind])"
    if page.xpath(alike, kind=item.get("itemtype", "")) != 1:
        return False
    return item.tag != "article" or page.xpath("count(//article)") == 1


def _is_another_thing(element: Any) -> bool:
    """A picture, a comment, a person; or a thing that RDFa names by an address of its own."""
    kinds = f"{element.get('itemtype', '')} {element.get('typeof', '')}"
    if any(kind in kinds for kind in OTHERS) or element.get("about", "") not in ("", "#"):
        return True
    return _is_called(element, "comment", "comments", "comment-body", *CAPTIONS)


def _is_footer(element: Any) -> bool:
    is_marked = element.tag == "footer" or element.get("role") == "contentinfo"
    return is_marked or _is_called(element, *FOOTERS)


def _is_called(element: Any, *names: str) -> bool:
    """Whether one of these is the id of an element, or one of its classes."""
    own = {*element.get("class", "").lower().split(), element.get("id", "").lower()}
    return not own.isdisjoint(names)


def _json_ld(root: Any) -> Iterator[Named]:
    scripts = root.xpath("//script[contains(@type, 'ld+json')]")
    for value in read_json_ld(script.text_content() for script in scripts):
        yield from ((name, True) for name in _licenses_of(value, 0))


def _licenses_of(value: Any, depth: int) -> Iterator[str]:
    """The `license` of the things that a JSON-LD value describes, except pictures and comments."""
    if depth > MAX_DEPTH:
        return
    if isinstance(value, list):
        for each in value:
            yield from _licenses_of(each, depth + 1)
    if not isinstance(value, dict):
        return
    if any(kind in str(value.get("@type")) for kind in OTHERS):
        return
    for key, each in value.items():
        if re.split("[:/#]", key)[-1] == "license":
            yield from _names_of(each)
        elif key in INSIDE:
            yield from _licenses_of(each, depth + 1)


def _names_of(value: Any) -> Iterator[str]:
    """A licence is an address, or a CreativeWork with one."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            each = each.get("url") or each.get("@id") or each.get("name")
        if isinstance(each, str):
            yield each


def _properties(root: Any) -> Iterator[Named]:
    for element in root.xpath("//*[@itemprop or @property]"):
        names = f"{element.get('itemprop', '')} {element.get('property', '')}".lower().split()
        if any(re.split("[:/#]", name)[-1] in ("license", "licence") for name in names):
            named = (element.get(key) for key in ("href", "resource", "content"))
            value = next(filter(None, named), element.text_content())
            yield value, _is_of_the_page(element, markup=True)


def _meta(root: Any) -> Iterator[Named]:
    for element in root.xpath("//meta[@name]"):
        if element.get("name").lower() in META:
            yield element.get("content", ""), True
