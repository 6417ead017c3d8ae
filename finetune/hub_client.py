"""What the Hugging Face Hub answers instead of a file: asked again, then said plainly."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TRANSIENT = (408, 429, 500, 502, 503, 504)
ATTEMPTS = 5
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 300.0
Answer = TypeVar("Answer")


def retried(call: Callable[[], Answer]) -> Answer:
    """Call; after a broken connection, a 429 or a 5xx wait and call again, five times at most.

    The hub's client does this for a part of its requests only. Waits double from one second, or
    are what the hub asks for in Retry-After, up to five minutes.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except (HTTPError, LocalEntryNotFoundError) as error:
            wait = _wait_s(error, attempt)
            if wait is None:
                raise
            logging.getLogger("hub").warning("the hub did not answer; again in %.0f s", wait)
            time.sleep(wait)
    return call()


def _wait_s(error: Exception, attempt: int) -> float | None:
    """How long to wait before another attempt, or None where it cannot help."""
    if isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error
    if not isinstance(error, HTTPError):
        return None
    response = getattr(error, "response", None)
    if response is None:
        return FIRST_WAIT_S * 2 ** (attempt - 1)
    if response.status_code not in TRANSIENT:
        return None
    asked = response.headers.get("Retry-After", "")
    return min(MAX_WAIT_S, float(asked) if asked.isdigit() else FIRST_WAIT_S * 2 ** (attempt - 1))


@contextmanager
def clear_errors(repository: str, revision: str | None, kind: str = "model") -> Iterator[None]:
    """Turn the hub client's errors into one ValueError that says what to do.

    `kind` is model or dataset. No message carries a token: only names and status codes.
    """
    place = f"{kind} {repository} at {revision}"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        yield
    except GatedRepoError:
        raise ValueError(
            f"{place} is gated: accept its terms at {page}, "
            "then set HF_TOKEN to a token of that account"
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"{place}: there is no such commit; see {page}/commits/main") from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"{place} does not exist, or is private: check the name at {page}, "
            "and set HF_TOKEN if it is private"
        ) from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, EntryNotFoundError, HTTPError) as error:
        raise ValueError(f"{place}{_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Why there was no file: the end of a sentence that starts with the repository."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HTTPError):
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return " is not on this machine and HF_HUB_OFFLINE is set"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f" has no such file: {_first_line(error)}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f": the hub answered {status}; check that HF_TOKEN is valid and may read it"
    if status:
        return f": the hub answered {status}; try again later"
    return (
        " is not on this machine and the hub cannot be reached: check the network "
        "(HF_ENDPOINT names another hub, HF_HUB_OFFLINE forbids all access)"
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
