"""What the Hugging Face Hub answers instead of a file: asked again, then said plainly."""

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

from finetune import patience

Answer = TypeVar("Answer")


def retried(call: Callable[[], Answer]) -> Answer:
    """Call; after a broken connection, a 429 or a 5xx wait and call again, five times at most.

    The hub's client does this for a part of its requests only.
    """
    return patience.retried(call, _asks, "the hub did not answer")


def _asks(error: Exception) -> str | None:
    """The hub's Retry-After, "" where it names none, or None where waiting cannot help."""
    if isinstance(error, LocalEntryNotFoundError):
        error = error.__cause__ or error
    if not isinstance(error, HTTPError):
        return None
    response = getattr(error, "response", None)
    if response is None:
        return ""
    if response.status_code not in patience.TRANSIENT:
        return None
    return response.headers.get("Retry-After", "")


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
