"""Puts the crawl store between the spider and the network, as two Scrapy middlewares.

`Recall` comes first, even before robots.txt: a page that is fresh costs no request at all. A page
that is old is asked for with its validators. `Remember` comes after decompression.
"""

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


class Recall:
    """Answers with a page of the store if it is fresh; asks with the validators of an old one."""

    def __init__(self, crawler: Crawler) -> None:
        self.store: Store = crawler.spider.store
        self.fresh_since: float = crawler.spider.fresh_since

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "Recall":
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


class Remember(Recall):
    """Keeps every final answer, and turns 304 into the page that it stands for."""

    def process_request(self, request: Request) -> None:
        return None

    def process_response(self, request: Request, response: Response) -> Response:
        if "stored" in response.flags or request.meta.get("dont_obey_robotstxt"):
            return response
        robots, old = request.meta.get("robots", ""), request.meta.pop("old", None)
        if response.status == 304 and old is not None:
            self.store.confirm(request.url, robots)
            return _response(self.store.get(request.url))
        if response.status in REMEMBERED:
            now = time.time()
            page = Page(
                request.url, response.status, _pairs(response), response.body, robots, now, now
            )
            self.store.put(page)
        return response


def _pairs(response: Response) -> list[tuple[str, str]]:
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, values in response.headers.items()
        for value in values
    ]


def _response(page: Page) -> Response:
    headers = Headers()
    for name, value in page.headers:
        headers.appendlist(name.encode("latin-1"), value.encode("latin-1"))
    kind: Any = responsetypes.from_args(headers=headers, url=page.url, body=page.body)
    return kind(page.url, page.status, headers, page.body, flags=["stored"])
