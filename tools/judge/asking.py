"""Each pair of answers before the judge, in both orders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import Any

from tqdm import tqdm

from stages.evaluate.predictions import Prediction
from tools.judge.prompt import Template
from tools.judge.replies import Kept, Replies, request_key
from tools.judge.server import Reply, Server

ORDERS = ("ab", "ba")  # ab: the first run's answer is shown first
DEFAULTS = {"temperature": 0, "max_tokens": 512}


@dataclass(frozen=True)
class Request:
    """What is sent for a row in one order, and its key in the file of replies."""

    id: str
    order: str
    key: str
    body: dict[str, Any]

    @property
    def characters(self) -> int:
        return len(self.body["messages"][0]["content"])


def make_requests(
    template: Template, model: str, more: dict[str, Any], one: Prediction, two: Prediction
) -> list[Request]:
    """Both orders of a row; none where the answers are the same, which is a tie unasked.

    `more` changes the settings sent; null takes one out.
    """
    answers = one.answer, two.answer
    if answers[0].strip() == answers[1].strip():
        return []
    settings = {name: value for name, value in (DEFAULTS | more).items() if value is not None}
    requests = []
    for order in ORDERS:
        first, second = answers if order == "ab" else answers[::-1]
        asked = {"question": one.question, "reference": one.reference}
        text = template.render(**asked, first=first, second=second)
        body = {"model": model, "messages": [{"role": "user", "content": text}], **settings}
        requests.append(Request(one.id, order, request_key(body), body))
    return requests


def ask_all(server: Server, requests: Sequence[Request], replies: Replies, parallel: int) -> None:
    """Ask what has no reply yet, `parallel` requests at a time; each reply is kept at once.

    The first is asked alone: a wrong key or name shows before others follow.
    """
    todo = list({each.key: each for each in requests if each.key not in replies}.values())
    if not todo:
        return
    with (
        replies.adding(),
        server.client() as client,
        tqdm(total=len(todo), unit="reply", desc="judge") as bar,
        # Its threads do not keep the process alive when another has failed or Ctrl-C was pressed.
        ThreadPool(parallel) as pool,
    ):
        for batch, ask_each in ((todo[:1], map), (todo[1:], pool.imap_unordered)):
            for kept in ask_each(_asker(server, client), batch):
                replies.add(kept)
                bar.update()


def _asker(server: Server, client: Any) -> Callable[[Request], Kept]:
    def ask(request: Request) -> Kept:
        reply: Reply = server.ask(client, request.body)
        return Kept(request.key, request.id, request.order, server.model, reply)

    return ask
