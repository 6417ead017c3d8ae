"""Puts the crawl store between the spider and the network, as a Scrapy middleware."""

import time
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes

from stages.fetch.captures import Page
from stages.fetch.manners import NOT_RESERVED
from stages.fetch.store import Store

REMEMBERED = (200, 301, 302, 303, 307, 308, 404, 410, 451)


class Remember:
    """Answers with a page of the store if it is fresh; keeps every final answer.

    It comes first, even before robots.txt: a page that is fresh costs no request at all. A page
    that is old is asked for with its validators; 304 stands for the page in the store. On the way
    back it comes last, behind decompression and retries.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.store: Store = crawler.spider.store
        self.fresh_since: float = crawler.spider.fresh_since

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "Remember":
        return cls(crawler)

    def process_request(self, request: Request) -> Response | None:
        page = None if request.meta.get("dont_obey_robotstxt") else self.store.get(request.url)
        if page is None:
            return None
        if page.checked >= self.fresh_since and page.robots.endswith(NOT_RESERVED):
            return _response(page)
        request.meta["old"] = page
        for validator, name in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified")):
            if page.header(name):
                request.headers[validator] = page.header(name)
        return None

    def process_response(self, request: Request, response: Response) -> Response:
        if "stored" in response.flags or request.meta.get("dont_obey_robotstxt"):
            return response
        robots, old = request.meta.get("robots", ""), request.meta.pop("old", None)
        if response.status == 304 and old is not None:
            self.store.confirm(request.url, robots)
            return _response(self.store.get(request.url))
        if response.status in REMEMBERED:
            pairs = ((name, value) for name, values in response.headers.items() for value in values)
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
            now, url = time.time(), request.url
            self.store.put(Page(url, response.status, headers, response.body, robots, now, now))
        return response


def _response(page: Page) -> Response:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in page.headers]
    headers = Headers(pairs)
    kind: Any = responsetypes.from_args(headers=headers, url=page.url, body=page.body)
    return kind(page.url, page.status, headers, page.body, flags=["stored"])
