"""Chat completions of any server that speaks OpenAI's protocol. Keys are neither said nor kept."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx2

from finetune import patience

CONNECT_TIMEOUT_S = 10.0
SHOWN = 300  # characters of what a server says of an error
MIN_SECRET = 8  # characters; a shorter "key" is the placeholder of a local server


@dataclass(frozen=True)
class Reply:
    """What the judge wrote. `finish` is why it stopped; `refused` says that it did not judge."""

    text: str
    finish: str
    refused: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Server:
    """Where the judge is: an address without secrets, and the key that goes with requests."""

    url: str
    model: str
    timeout_s: float
    key: str = field(default="", repr=False)

    def client(self) -> httpx2.Client:
        """A client whose requests carry the key; threads may share it."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx2.Timeout(self.timeout_s, connect=CONNECT_TIMEOUT_S)
        return httpx2.Client(headers=headers, timeout=timeout)

    def ask(self, client: httpx2.Client, body: Mapping[str, Any]) -> Reply:
        """One completion; what is busy is asked again. Raises ValueError, one line, else."""
        try:
            response = patience.retried(
                lambda: self._post(client, body), _asks, f"{self.url} is busy or did not answer"
            )
        except httpx2.HTTPStatusError as error:
            raise ValueError(self._refusal(client, error.response)) from None
        except httpx2.ConnectError as error:
            raise ValueError(
                f"no server answers at {self.url} ({_first_line(error)}): check JUDGE_BASE_URL, "
                "and that the server runs"
            ) from None
        except httpx2.HTTPError as error:
            raise ValueError(
                f"{self.url} did not answer ({type(error).__name__}): run again, only what is "
                "missing is asked; --timeout allows more seconds"
            ) from None
        return self._read(response)

    def _post(self, client: httpx2.Client, body: Mapping[str, Any]) -> httpx2.Response:
        return client.post(f"{self.url}/chat/completions", json=dict(body)).raise_for_status()

    def _read(self, response: httpx2.Response) -> Reply:
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason") or ""
            text = message.get("content") or ""
            used = answer.get("usage") or {}
            counts = [int(used.get(f"{name}_tokens") or 0) for name in ("prompt", "completion")]
            refused = bool(message.get("refusal")) or finish == "content_filter"
            return Reply(self.hide(str(text)), str(finish), refused, *counts)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"{self.url} answers no chat completion but {self._said(response)!r}: "
                "JUDGE_BASE_URL ends in /v1 as a rule"
            ) from None

    def _refusal(self, client: httpx2.Client, response: httpx2.Response) -> str:
        """What an answer of 3xx, 4xx or 5xx means for the user."""
        status = response.status_code
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            what = "that JUDGE_API_KEY is valid and may use" if self.key else "JUDGE_API_KEY, for"
            return f"{self.url} answers {status}: check {what} {self.model}"
        if status == HTTPStatus.NOT_FOUND:
            models = self._models(client)
            if models is None:
                return f"{self.url} answers 404: JUDGE_BASE_URL ends in /v1 as a rule"
            if self.model not in models:
                there = ", ".join(models[:20]) or "none"
                return f"JUDGE_MODEL is {self.model}, which {self.url} has not; it has {there}"
        remedy = "try again later; only what is missing is asked"
        if status not in patience.TRANSIENT:
            remedy = "--request changes what is sent, such as '{\"temperature\": null}'"
        return f"{self.url} answers {status}: {self._said(response)}; {remedy}"

    def _models(self, client: httpx2.Client) -> list[str] | None:
        """The names of the models that the server lists; None where it lists none."""
        try:
            found = client.get(f"{self.url}/models").raise_for_status().json()["data"]
            return sorted(str(each["id"]) for each in found)
        except (httpx2.HTTPError, ValueError, LookupError, TypeError):
            return None

    def _said(self, response: httpx2.Response) -> str:
        """The server's own words for an error, in one short line without the key."""
        text = response.text
        try:
            error = json.loads(text)["error"]
            text = error["message"] if isinstance(error, dict) else str(error)
        except (ValueError, LookupError, TypeError):
            pass
        return " ".join(self.hide(str(text)).split())[:SHOWN] or "nothing"

    def hide(self, text: str) -> str:
        """The text without the key, should a server repeat it."""
        return text.replace(self.key, "***") if len(self.key) >= MIN_SECRET else text


def find_server(timeout_s: float, environment: Mapping[str, str] = os.environ) -> Server:
    """The judge that the environment names. Raises ValueError for what is missing or no address."""
    url, key, model = (
        environment.get(f"JUDGE_{name}", "").strip() for name in ("BASE_URL", "API_KEY", "MODEL")
    )
    for name, value in (("JUDGE_BASE_URL", url), ("JUDGE_MODEL", model)):
        if not value:
            raise ValueError(
                f"{name} is not set: the judge is any OpenAI-compatible server, such as "
                "JUDGE_BASE_URL=http://localhost:8000/v1 JUDGE_MODEL=NAME, and JUDGE_API_KEY "
                "where it wants one"
            )
    if not _is_address(url):
        # Not shown: a password may be in it.
        raise ValueError(
            "JUDGE_BASE_URL is no plain http or https address, as http://localhost:8000/v1: "
            "no name, no password, no ?query"
        )
    if not (key.isascii() and key.isprintable()):
        # Said here without it: the HTTP library's own error would show it.
        raise ValueError("JUDGE_API_KEY holds characters that no header may have")
    return Server(url.rstrip("/"), model, timeout_s, key)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query or parts.fragment:
            return False
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _asks(error: Exception) -> str | None:
    """Retry-After, "" where there is none, or None for what waiting cannot help."""
    if isinstance(error, httpx2.HTTPStatusError):
        if error.response.status_code not in patience.TRANSIENT:
            return None
        return error.response.headers.get("Retry-After", "")
    passes = isinstance(error, (httpx2.TimeoutException, httpx2.NetworkError, httpx2.ProtocolError))
    return "" if passes and not isinstance(error, httpx2.ConnectError) else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
