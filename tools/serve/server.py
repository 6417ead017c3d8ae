"""The endpoint: HTTP to requests, answers to JSON or server-sent events."""

import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from finetune.errors import is_out_of_memory
from tools.serve.replies import Reply, count_usage, describe_model, list_models
from tools.serve.requests import (
    ChatRequest,
    CompletionRequest,
    Request,
    RequestError,
    read_request,
)

if TYPE_CHECKING:  # they import torch
    from tools.decoding import Stream
    from tools.serve.service import Service

PATHS = {"/v1/chat/completions": ChatRequest, "/v1/completions": CompletionRequest}
LARGEST_BODY = 10_000_000  # bytes

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """Listens from the beginning, so that a port that is taken is known before a model is loaded.

    Raises ValueError where it cannot.
    """

    daemon_threads = True
    service: "Service"

    def __init__(self, host: str, port: int) -> None:
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"--host {host} --port {port}: {reason}; choose another") from None
        self.numbers = count(1)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ip_address(self.server_address[0]).is_loopback

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds in which a client sends or takes nothing
    server: Server

    def do_GET(self) -> None:
        """The models."""
        self._handle(self._list)

    def do_POST(self) -> None:
        """A conversation's next turn, or the continuation of a text."""
        self._handle(self._answer)

    def _handle(self, action: Any) -> None:
        try:
            self._check_host()
            action(urlsplit(self.path).path)
        except RequestError as error:
            self._send(error.status, error.body())
        except OSError:  # the client has gone
            self.close_connection = True
        except Exception as error:
            self._send(500, describe_failure(error).body())

    def _check_host(self) -> None:
        """A page in a browser must not ask by a name of its own that leads here."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if self.server.is_loopback and name not in ("localhost", self.server.server_address[0]):
            raise RequestError(f"the Host header names {name}, not this machine", 403)

    def _list(self, path: str) -> None:
        service = self.server.service
        if path == "/v1/models":
            self._send(200, list_models(service.names, service.created))
            return
        for name in service.names:
            if path == f"/v1/models/{name}":
                self._send(200, describe_model(name, service.created))
                return
        raise RequestError(f"there is nothing at GET {path}", 404, code="not_found")

    def _answer(self, path: str) -> None:
        body = self._read_body()
        if path not in PATHS:
            raise RequestError(f"there is nothing at POST {path}", 404, code="not_found")
        request = read_request(PATHS[path], body)
        prompt, limit = self.server.service.prepare(request)
        reply = Reply(next(self.server.numbers), request.model, isinstance(request, ChatRequest))
        with self.server.service.answering(request, prompt, limit) as stream:
            if request.stream:
                self._send_events(reply, request, stream, len(prompt))
                return
            text = "".join(_pieces(request, stream))
        usage = count_usage(len(prompt), stream.tokens)
        self._send(200, reply.whole(text, _reason(stream), usage))

    def _read_body(self) -> Any:
        """Raises RequestError for what is no JSON: pages of others can send only such unasked."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            raise RequestError(f"Content-Length must be given, at most {LARGEST_BODY}", 413)
        content = self.rfile.read(int(length))
        if self.headers.get_content_type() != "application/json":
            raise RequestError("Content-Type must be application/json", 415)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is no JSON: {error}") from None

    def _send(self, status: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status >= 400:  # a refused body may not have been read
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _send_events(self, reply: Reply, request: Request, stream: "Stream", prompt: int) -> None:
        """The connection's end is that of the answer. What fails on the way is its last event."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for chunk in reply.opening():
                self._send_event(chunk)
            for piece in _pieces(request, stream):
                self._send_event(reply.piece(piece))
            self._send_event(reply.closing(_reason(stream)))
            if request.stream_options and request.stream_options.include_usage:
                self._send_event(reply.count(count_usage(prompt, stream.tokens)))
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            raise
        except Exception as error:
            self._send_event(describe_failure(error).body())

    def _send_event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself, as JSON too."""
        self._send(code, RequestError(message or self.responses[code][0], code).body())

    def log_message(self, format: str, *args: Any) -> None:
        log.info(format, *args)


def describe_failure(error: Exception) -> RequestError:
    """What the client is told of an error that is not its own; the rest is logged."""
    log.error("error: a request failed", exc_info=error)
    words = "the device is out of memory" if is_out_of_memory(error) else "see the server's log"
    return RequestError(f"the answer failed: {words}", 500)


def _pieces(request: Request, stream: "Stream") -> Iterator[str]:
    """A turn without white space around it; a continuation as it is."""
    from tools.decoding import stripped

    return stripped(iter(stream)) if isinstance(request, ChatRequest) else iter(stream)


def _reason(stream: "Stream") -> str:
    return "stop" if stream.ended else "length"
