"""Keeps a crawl away from private networks: after DNS resolution, for every connection it makes."""

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies

from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

# Only tests set it: their sites are on this machine.
ALLOW_LOOPBACK = "CRAWL_ALLOW_LOOPBACK"


def is_public(address: str) -> bool:
    """Whether an IP address may be asked: it is on the public internet."""
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return os.environ.get(ALLOW_LOOPBACK) == "1"
    return ip.is_global and not ip.is_multicast


def names_private(host: str) -> bool:
    """Whether a host is itself a private IP address; a name is judged when it is resolved."""
    try:
        return not is_public(host.strip("[]"))
    except ValueError:
        return False


class GuardedResolver(CachingThreadedResolver):
    """Scrapy's resolver, which finds no address for a host that is on a private network.

    What it resolves is what is connected to, so an answer cannot change in between. A proxy from
    the environment is the one host that may be private; behind it the proxy resolves.
    """

    refused: set[str] = set()

    def getHostByName(self, name: str, timeout: tuple = ()) -> Deferred[str]:  # noqa: N802
        """The public address of a host; DNSLookupError, and the name in `refused`, if private."""
        return super().getHostByName(name, timeout).addCallback(self._check, name)

    def _check(self, address: str, name: str) -> str:
        proxies = {urlsplit(proxy).hostname for proxy in getproxies().values()}
        if not is_public(address) and name not in proxies:
            self.refused.add(name)
            raise DNSLookupError(f"{name} is on a private network")
        return address
