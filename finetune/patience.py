"""How often a server is asked again that is busy or away, and how long is waited in between."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

ATTEMPTS = 5
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 300.0
TRANSIENT = (408, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


def retried(
    call: Callable[[], Answer], asks: Callable[[Exception], str | None], what: str
) -> Answer:
    """Call; after an error that may pass wait and call again, five times at most.

    `asks` gives an error's Retry-After, "" where it has none (waits then double from one second),
    and None for an error that waiting cannot help: that one is raised. No wait is above 5 minutes.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except Exception as error:
            asked = asks(error)
            if asked is None:
                raise
            wait_s = retry_after_s(asked)
            wait_s = FIRST_WAIT_S * 2 ** (attempt - 1) if wait_s is None else wait_s
            wait_s = min(MAX_WAIT_S, wait_s)
            logging.getLogger("fetch").warning("%s; again in %.0f s", what, wait_s)
            time.sleep(wait_s)
    return call()


def retry_after_s(value: str) -> float | None:
    """The seconds of a Retry-After header, given as a number or as a date; None if it is neither.

    RFC 9110, 10.2.3. A date that has passed asks for no wait.
    """
    if value.strip().isdecimal():
        return float(value)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
