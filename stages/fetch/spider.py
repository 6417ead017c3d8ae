"""Which addresses a crawl asks for, and what becomes of each.

Every address that is met ends as one outcome: Kept, or the reason why it is not.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import (
    CloseSpider,
    DownloadCancelledError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import HtmlResponse, Response
from scrapy.linkextractors import LinkExtractor
from scrapy.settings.default_settings import RETRY_EXCEPTIONS
from scrapy.utils.misc import load_object
from tqdm import tqdm
from w3lib.url import canonicalize_url

from finetune.params import Web
from finetune.web import is_html
from stages.fetch import sitemaps
from stages.fetch.addresses import GuardedResolver
from stages.fetch.judging import FOLLOW_NOTHING, Kept, judge, robots_words
from stages.fetch.manners import Refused
from stages.fetch.scope import Scope
from stages.fetch.store import Store

LOST = tuple(each if isinstance(each, type) else load_object(each) for each in RETRY_EXCEPTIONS)

_LOSSES = {DownloadTimeoutError: "slower than timeout", ResponseDataLossError: "cut short"}


class Crawl(Spider):
    """The spider of one source; `outcomes` maps each address to a Kept or to a reason."""

    name = "crawl"

    def __init__(self, source: Web, store: Store, fresh_since: float) -> None:
        super().__init__(self.name)
        self.store, self.fresh_since = store, fresh_since  # for Remember
        self.source, self.scope = source, Scope(source)
        self.links = LinkExtractor(unique=True, deny_extensions=())
        self.outcomes: dict[str, Kept | str] = {}
        self.asked = self.kept = 0
        self.failure: BaseException | None = None
        self.ended = ""
        self.progress = tqdm(total=source.max_pages, unit=" pages", disable=None)

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> "Crawl":
        """As Scrapy makes it, and connected to what happens outside of callbacks."""
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.check_headers, signal=signals.headers_received)
        crawler.signals.connect(spider.note_sitemaps, signal=signals.robots_parsed)
        crawler.signals.connect(spider.note_bug, signal=signals.spider_error)
        crawler.signals.connect(spider.note_end, signal=signals.spider_closed)
        return spider

    async def start(self) -> AsyncIterator[Request]:
        """The sitemaps and the start addresses."""
        maps = dict.fromkeys((*self.source.sitemaps, *self.store.sitemaps()), True)
        for url, is_map in [*maps.items(), *dict.fromkeys(self.source.start_urls, False).items()]:
            for request in self.ask(url, 0, is_map, always=True):
                yield request

    def ask(
        self, url: str, level: int, is_map: bool, always: bool = False, base: str = ""
    ) -> Iterator[Request]:
        """A request for a page or a sitemap, if the address is new and there is no objection.

        `always`: of any path.
        """
        try:
            url = canonicalize_url(urljoin(base, url))
        except ValueError:  # http://[
            self.outcomes[url] = "no valid address"
            return
        if url in self.outcomes or not url.startswith(("http://", "https://")):
            return
        objection = self.scope.objection(url, level, always, self.asked)
        self.outcomes[url] = objection or "not answered"
        if objection:
            return
        meta = {"handle_httpstatus_all": True, "level": level, "is_map": is_map, "always": always}
        if is_map:
            meta["download_maxsize"] = sitemaps.MAX_BYTES
        else:
            self.asked += 1
        yield Request(url, self.parse, errback=self.note_failure, meta=meta, priority=-level)

    def check_headers(self, headers: Any, request: Request, **_: Any) -> None:
        """Load no more of what is no page: a film, an archive."""
        kind = (headers.get(b"Content-Type") or b"text/html").decode("latin-1")
        if request.meta.get("is_map") is False and not is_html(kind):
            raise StopDownload(fail=False)

    def parse(self, response: Response) -> Iterator[Request]:
        """What to ask for instead of an address that was moved, or behind one that was not."""
        self.stop_after_a_bug()
        meta, location = response.meta, response.headers.get("Location", b"").decode("latin-1")
        if 300 <= response.status < 400 and location:
            self.end(response.request, "redirected")
            where = (meta["level"], meta["is_map"], meta["always"], response.url)
            yield from self.ask(location, *where)
        else:
            yield from (self.read_sitemap if meta["is_map"] else self.read_page)(response)

    def read_page(self, response: Response) -> Iterator[Request]:
        """Judge a page, then follow its links, also where the page itself is not kept."""
        self.end(response.request, judge(response, self.source))
        if response.status != 200 or not isinstance(response, HtmlResponse):
            return
        if any(word in FOLLOW_NOTHING for word in robots_words(response)):
            return
        for link in self.links.extract_links(response):
            if not link.nofollow:
                yield from self.ask(link.url, response.meta["level"] + 1, is_map=False)

    def read_sitemap(self, response: Response) -> Iterator[Request]:
        """The addresses of a sitemap, or of the sitemaps that an index names."""
        if response.status != 200:
            self.end(response.request, f"status {response.status}")
            return
        index, urls = sitemaps.read(response)
        self.end(response.request, "sitemap" if urls else "broken or empty sitemap")
        for url in urls:
            yield from self.ask(url, 0 if index else 1, index, always=index, base=response.url)

    def note_sitemaps(self, robotparser: Any, request: Request, **_: Any) -> None:
        """Ask for the sitemaps that robots.txt lists, where they are on the crawl's hosts."""
        urls = sorted(set(robotparser.rp.sitemaps))
        self.store.note_sitemaps(urls)
        for url in urls:
            for asked in self.ask(url, 0, is_map=True, always=True, base=request.url):
                self.crawler.engine.crawl(asked)

    def note_failure(self, failure: Any) -> None:
        """There is no answer: count it under its reason. An error of ours ends the crawl."""
        error, request = failure.value, failure.request
        private = urlsplit(request.url).hostname in GuardedResolver.refused
        too_large = isinstance(error, IgnoreRequest) and "DOWNLOAD_MAXSIZE" in str(error)
        if private and isinstance(error, (*LOST, Refused)):
            self.end(request, "private address")
        elif isinstance(error, Refused):
            self.end(request, str(error))
        elif isinstance(error, DownloadCancelledError) or too_large:
            self.end(request, "larger than max_page_bytes")
        elif isinstance(error, LOST):
            self.end(request, _LOSSES.get(type(error), "connection failed"))
        else:
            self.note_bug(failure)
            self.stop_after_a_bug()

    def note_bug(self, failure: Any, **_: Any) -> None:
        """An error of ours must not pass for a page that was refused."""
        self.failure = self.failure or failure.value

    def stop_after_a_bug(self) -> None:
        if self.failure:
            raise CloseSpider("failed")

    def note_end(self, reason: str, **_: Any) -> None:
        """Scrapy says how it ended: finished, failed, or shutdown by a signal."""
        self.ended = reason
        self.progress.close()

    def end(self, request: Request, outcome: Kept | str) -> None:
        """Set what became of an address."""
        self.outcomes[request.url] = outcome
        self.kept += isinstance(outcome, Kept)
        self.progress.set_postfix(kept=self.kept, refresh=False)
        self.progress.update()
