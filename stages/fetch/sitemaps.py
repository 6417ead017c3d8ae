"""Sitemaps (sitemaps.org): the pages of a site, as the site itself lists them."""

from scrapy.http import Response
from scrapy.utils.gz import gunzip, gzip_magic_number
from scrapy.utils.sitemap import Sitemap

MAX_BYTES = 50 << 20  # the limit of sitemaps.org, unpacked


def read(response: Response) -> tuple[bool, list[str]]:
    """Whether it is an index of sitemaps, and the addresses in it; none if it is broken."""
    try:
        body = response.body
        if gzip_magic_number(response):
            body = gunzip(body, max_size=MAX_BYTES)
        sitemap = Sitemap(body)
        urls = [entry["loc"] for entry in sitemap if entry["loc"]]
        return sitemap.type == "sitemapindex", urls
    # lxml's errors are SyntaxErrors; Scrapy has one of its own, private, for what unpacks too far
    except (SyntaxError, ValueError, OSError, StopIteration, EOFError):
        return False, []
