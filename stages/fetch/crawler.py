"""Runs one crawl in this process: Scrapy, set up to be polite."""

import logging
import time

from scrapy.crawler import CrawlerProcess

from finetune import patience
from finetune.params import Web
from stages.fetch.addresses import GuardedResolver
from stages.fetch.judging import Kept
from stages.fetch.manners import KeepDelay, ObeyRobots, RetryWithPatience
from stages.fetch.remembering import Remember
from stages.fetch.reservations import AGENT
from stages.fetch.spider import Crawl
from stages.fetch.store import Store

SECONDS_PER_DAY = 86_400
CONCURRENT_HOSTS = 8


def crawl(source: Web, store: Store) -> dict[str, Kept | str]:
    """Fetch what is allowed into the store; returns what became of each address.

    Raises OSError if the crawl was interrupted, and whatever went wrong in our own code.
    """
    fresh_since = min(store.begin(), time.time() - source.revisit_days * SECONDS_PER_DAY)
    logging.disable(logging.ERROR)  # Scrapy's log: every failure is counted, and ours are raised
    try:
        process = CrawlerProcess(settings(source))
        crawler = process.create_crawler(Crawl)
        process.crawl(crawler, source=source, store=store, fresh_since=fresh_since)
        process.start()
    finally:
        logging.disable(logging.NOTSET)
    spider = crawler.spider
    if spider.failure:
        raise spider.failure
    if spider.ended != "finished":
        raise OSError(f"the crawl was interrupted ({spider.ended}); run it again to continue")
    return spider.outcomes


def settings(source: Web) -> dict:
    """Scrapy's settings. One request at a time per host, never faster than `delay`."""
    return {
        "USER_AGENT": f"{AGENT}/1.0 (+{source.contact})",
        "ROBOTSTXT_OBEY": True,
        "ROBOTSTXT_USER_AGENT": AGENT,
        "CONCURRENT_REQUESTS": CONCURRENT_HOSTS,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "CONCURRENT_ITEMS": 1,  # Scrapy makes as many tasks for each page
        "DOWNLOAD_DELAY": source.delay,
        "DOWNLOAD_DELAY_JITTER": 0,
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": source.delay,
        "AUTOTHROTTLE_MAX_DELAY": patience.MAX_WAIT_S,
        "DOWNLOAD_TIMEOUT": source.timeout,
        "DOWNLOAD_MAXSIZE": source.max_page_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "TWISTED_DNS_RESOLVER": GuardedResolver,
        "COOKIES_ENABLED": False,
        "METAREFRESH_ENABLED": False,
        # two servers that run any code sent to them, on by default
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,
        "STATS_DUMP": False,
        "LOG_ENABLED": False,
        "LOG_INSTALL_ROOT_HANDLER": False,
        # breadth first, in the order of the links
        "DEPTH_PRIORITY": 1,
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
        "EXTENSIONS": {
            "scrapy.extensions.throttle.AutoThrottle": None,
            KeepDelay: 0,
        },
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware": None,  # the spider decides
            Remember: 60,
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
            ObeyRobots: 100,
            "scrapy.downloadermiddlewares.retry.RetryMiddleware": None,
            RetryWithPatience: 550,
        },
    }
