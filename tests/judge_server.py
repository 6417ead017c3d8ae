"""A chat completions server on loopback, with the manners of real ones.

    with serve(opinion) as server:
        ...                          # server.url; server.asked lists the requests' bodies

An opinion is a function of (question, first answer, second answer) that gives the reply's text.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-tests-4711"
MODEL = "judge-1"
Opinion = Callable[[str, str, str], str]


@dataclass
class Answer:
    """What is answered instead of an opinion."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class JudgeServer(ThreadingHTTPServer):
    """`first` is answered before anything else, once each; `wait_s` before each reply."""

    daemon_threads = True

    def __init__(self, opinion: Opinion, first: list[Answer], wait_s: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.opinion, self.first, self.wait_s = opinion, first, wait_s
        self.asked: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: JudgeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send(Answer(200, json.dumps({"data": [{"id": MODEL}, {"id": "judge-2"}]})))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        time.sleep(self.server.wait_s)
        if self.server.first:
            self.send(self.server.first.pop(0))
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            said = f"Incorrect API key provided: {self.headers['Authorization']}"
            self.send(Answer(401, json.dumps({"error": {"message": said}})))
        elif self.path != "/v1/chat/completions" or body["model"] != MODEL:
            self.send(Answer(404, json.dumps({"error": {"message": "model_not_found"}})))
        else:
            self.send(Answer(200, self.completion(body["messages"][0]["content"])))

    def completion(self, prompt: str) -> str:
        tags = ("question", "answer_a", "answer_b")
        texts = [re.search(f"<{tag}>\n(.*)\n</{tag}>", prompt, re.DOTALL)[1] for tag in tags]
        message = {"role": "assistant", "content": self.server.opinion(*texts)}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps({"choices": [choice], "usage": usage})

    def send(self, answer: Answer) -> None:
        data = answer.body.encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serve(
    opinion: Opinion, *, first: list[Answer] | None = None, wait_s: float = 0.0
) -> Iterator[JudgeServer]:
    """The server, as long as the block lasts."""
    server = JudgeServer(opinion, list(first or []), wait_s)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
