"""Which addresses a crawl may ask for: its own hosts, allowed paths, so deep, so many."""

import re
from urllib.parse import unquote, urlsplit

from scrapy.linkextractors import IGNORED_EXTENSIONS
from scrapy.utils.url import url_has_any_extension
from w3lib.url import canonicalize_url

from finetune.params import Web
from stages.fetch.addresses import names_private

_OTHER_FILES = {f".{each}" for each in IGNORED_EXTENSIONS}


def hosts_of(source: Web) -> list[str]:
    """The hosts (with ports) of the start addresses and sitemaps: the crawl stays on them."""
    urls = [canonicalize_url(url) for url in (*source.start_urls, *source.sitemaps)]
    return sorted({urlsplit(url).netloc for url in urls})


class Scope:
    """What one source asks for."""

    def __init__(self, source: Web) -> None:
        self._source, self._hosts = source, hosts_of(source)
        self._paths = [_pattern(each) for each in source.allowed_paths]

    def objection(self, url: str, level: int, always: bool, asked: int) -> str | None:
        """Why an address is not asked for, or None.

        `level` counts links from a start address, `asked` the pages so far; `always` is for what
        params.yaml names itself: it may have any path.
        """
        parts = urlsplit(url)
        path = unquote(parts.path) + (f"?{unquote(parts.query)}" if parts.query else "")
        if names_private(parts.hostname or ""):
            return "private address"
        if parts.netloc not in self._hosts:
            return "off its hosts"
        if not always and self._paths and not any(each.fullmatch(path) for each in self._paths):
            return "outside allowed_paths"
        if not always and url_has_any_extension(url, _OTHER_FILES):
            return "not HTML, by its name"
        if level > self._source.max_depth:
            return "deeper than max_depth"
        if asked >= self._source.max_pages:
            return "beyond max_pages"
        return None


def _pattern(pattern: str) -> re.Pattern[str]:
    """A path pattern: `*` stands for anything, every other character for itself."""
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)
