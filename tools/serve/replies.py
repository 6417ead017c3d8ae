"""What is answered, in the form of OpenAI's interface."""

import time
from collections.abc import Iterator, Sequence
from typing import Any


def list_models(names: Sequence[str], created: int) -> dict[str, Any]:
    """What GET /v1/models says."""
    return {"object": "list", "data": [describe_model(name, created) for name in names]}


def describe_model(name: str, created: int) -> dict[str, Any]:
    """One model of the list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "local"}


class Reply:
    """The reply to one request, whole or in chunks."""

    def __init__(self, number: int, model: str, is_chat: bool) -> None:
        self._is_chat = is_chat
        name = "chatcmpl" if is_chat else "cmpl"
        self._facts = {"id": f"{name}-{number}", "created": int(time.time()), "model": model}

    def whole(self, text: str, reason: str, usage: dict[str, int]) -> dict[str, Any]:
        """The answer, why it ended (stop or length), and how many tokens it took."""
        message = {"role": "assistant", "content": text}
        said = {"message": message} if self._is_chat else {"text": text}
        choice = {"index": 0, **said, "finish_reason": reason, "logprobs": None}
        kind = "chat.completion" if self._is_chat else "text_completion"
        return {**self._facts, "object": kind, "choices": [choice], "usage": usage}

    def opening(self) -> Iterator[dict[str, Any]]:
        """What comes before the first piece."""
        if self._is_chat:
            yield self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the answer."""
        return self._chunk({"content": text}, None)

    def closing(self, reason: str) -> dict[str, Any]:
        """Why the answer ended."""
        return self._chunk({}, reason)

    def count(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk that `stream_options.include_usage` asks for."""
        return {**self._facts, "object": self._chunk_kind(), "choices": [], "usage": usage}

    def _chunk(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        said = {"delta": delta} if self._is_chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "finish_reason": reason, "logprobs": None}
        return {**self._facts, "object": self._chunk_kind(), "choices": [choice]}

    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self._is_chat else "text_completion"


def count_usage(prompt: int, answer: int) -> dict[str, int]:
    """Tokens of both, and together."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
