"""How a crawl behaves: robots.txt obeyed to the letter, its delay kept, patience with errors."""

from typing import Any
from urllib.parse import urlsplit

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK

from finetune import patience
from stages.fetch.reservations import AGENT, AI_TXT, TDMREP, Reservations, plain_robots

NOT_RESERVED = "; nothing reserved"  # marks a page of the store as asked for with this in mind


class Refused(IgnoreRequest):
    """A request that is not made, with the reason that the manifest counts it under."""


class ObeyRobots(RobotsTxtMiddleware):
    """Scrapy's middleware, as strict as RFC 9309: where robots.txt cannot be had, nothing may.

    Scrapy itself takes a server error, or no answer, for permission. 404 is permission. What the
    site reserves is read beside it, before its first page.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self.verdicts: dict[str, str] = {}
        self.unreadable: dict[str, str] = {}
        self.reservations: dict[str, Reservations] = {}

    async def robot_parser(self, request: Request) -> Any:
        """The rules of the host. Of several requests that wait for them, Scrapy 2.19 gives them
        to the first and None, which is permission, to all others; so they are looked up again."""
        await super().robot_parser(request)
        return self._parsers[urlsplit(request.url).netloc]

    def process_request_2(self, rp: Any, request: Request) -> None:
        host = urlsplit(request.url).netloc
        if rp is None or host in self.unreadable:
            raise Refused(self.unreadable.get(host, "robots.txt cannot be read"))
        if not rp.allowed(request.url, AGENT):
            raise Refused("disallowed by robots.txt")
        if reason := self.reservations[host].reason(request.url):
            raise Refused(reason)
        request.meta["robots"] = self.verdicts[host]

    async def _parse_robots(self, response: Response, netloc: str, request: Request) -> None:
        if _is_away(response):
            self.unreadable[netloc] = "robots.txt cannot be read"
        elif response.status == 200:
            self.verdicts[netloc] = f"allowed{NOT_RESERVED}"
            response = response.replace(body=plain_robots(response.body))
        else:
            self.verdicts[netloc] = f"allowed: no robots.txt ({response.status}){NOT_RESERVED}"
            response = response.replace(body=b"")  # an error page holds no rules
        if netloc in self.verdicts:
            await self._read_reservations(response.body, netloc, request)
        await super()._parse_robots(response, netloc, request)

    async def _read_reservations(self, robots: bytes, netloc: str, request: Request) -> None:
        found = []
        for path in (TDMREP, AI_TXT):
            url = f"{urlsplit(request.url).scheme}://{netloc}{path}"
            meta = {"dont_obey_robotstxt": True}
            asked = Request(url, NO_CALLBACK, priority=self.DOWNLOAD_PRIORITY, meta=meta)
            try:
                answer = await self.crawler.engine.download_async(asked)
            except Exception:  # no answer: whether something is reserved cannot be known
                self.unreadable[netloc] = f"{path} cannot be read"
                return
            if _is_away(answer):
                self.unreadable[netloc] = f"{path} cannot be read"
            found.append(answer.body if answer.status == 200 else b"")
        self.reservations[netloc] = Reservations(robots, *found)


def _is_away(response: Response) -> bool:
    return response.status >= 500 or response.status == 429


class KeepDelay(AutoThrottle):
    """Scrapy's throttle, which never goes below a host's Crawl-delay."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self.crawl_delays_s: dict[str, float] = {}
        crawler.signals.connect(self._robots_parsed, signal=signals.robots_parsed)

    def _robots_parsed(self, robotparser: Any, request: Request) -> None:
        delay = robotparser.crawl_delay(AGENT)
        if delay is None:
            return
        downloader = self.crawler.engine.downloader
        host = downloader.get_slot_key(request)
        self.crawl_delays_s[host] = delay
        # for the slot that Scrapy makes anew when a host was idle for a minute
        downloader.per_slot_settings[host] = {"delay": max(delay, self._min_delay())}
        if host in downloader.slots:
            downloader.slots[host].delay = max(delay, downloader.slots[host].delay)

    def _response_downloaded(self, response: Response, request: Request, spider: Any) -> None:
        """Leave a host alone that is busy, before the next request to it is made."""
        super()._response_downloaded(response, request, spider)
        host, slot = self._get_slot(request, spider)
        if slot is not None:
            slot.delay = max(slot.delay, self.crawl_delays_s.get(host, 0.0))
        if response.status in self.crawler.settings.getlist("RETRY_HTTP_CODES"):
            asked = response.headers.get(b"Retry-After", b"").decode("latin-1")
            leave_alone(self.crawler, request, patience.retry_after_s(asked))


class RetryWithPatience(RetryMiddleware):
    """Scrapy's retries; after a broken connection too the host is left alone for a while."""

    def process_exception(self, request: Request, exception: Exception) -> Request | None:
        again = super().process_exception(request, exception)
        if again is not None:
            leave_alone(self.crawler, request, None)
        return again


def leave_alone(crawler: Crawler, request: Request, asked_s: float | None) -> None:
    """Wait as long as the host asks for, or 1, 2, 4 ... s, before anything else is asked of it.

    The wait becomes the host's delay, which the throttle takes back as it answers well again.
    """
    doubled_s = patience.FIRST_WAIT_S * 2 ** request.meta.get("retry_times", 0)
    wait_s = doubled_s if asked_s is None else asked_s
    slot = crawler.engine.downloader.slots.get(request.meta.get("download_slot"))
    if slot is not None:
        slot.delay = max(slot.delay, min(wait_s, patience.MAX_WAIT_S))
