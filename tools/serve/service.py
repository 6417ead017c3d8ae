"""The loaded model, which answers one request after another."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.text.prompts import bos_ids, encode
from tools.assistant import Assistant, render_turns
from tools.decoding import Sampling, Stream
from tools.serve.requests import ChatRequest, CompletionRequest, Request, RequestError

BASE = "base"


class Service:
    """One model under two names: that of the run with the adapter, and `base` without it, where
    that is what it was."""

    def __init__(self, assistant: Assistant, max_new_tokens: int) -> None:
        name = assistant.settings.get("name", "adapter")
        self.names = [name if name != BASE else "adapter"]
        self.names += [BASE] if assistant.has_base else []
        self.created = int(time.time())
        self._assistant, self._max_new_tokens = assistant, max_new_tokens
        self._turn = threading.Lock()

    def prepare(self, request: Request) -> tuple[list[int], int]:
        """The prompt in token ids, and how many tokens the answer may have.

        Raises RequestError where there is no such model, for a prompt that cannot be rendered, and
        where prompt and answer could be longer than the model's context.
        """
        if request.model not in self.names:
            words = f"there is no model {request.model!r}, only {', '.join(self.names)}"
            raise RequestError(words, 404, param="model", code="model_not_found")
        name = "messages" if isinstance(request, ChatRequest) else "prompt"
        prompt = self._render(request, name)
        context, limit = self._assistant.context, request.limit
        if limit is None:
            room = self._max_new_tokens if context is None else context - len(prompt)
            limit = max(1, min(self._max_new_tokens, room))
        try:
            self._assistant.check_room(prompt, limit)
        except ValueError as error:
            code = "context_length_exceeded"
            raise RequestError(str(error), param=name, code=code) from None
        return prompt, limit

    @contextmanager
    def answering(self, request: Request, prompt: list[int], limit: int) -> Iterator[Stream]:
        """The answer, to be iterated over, when this request's turn has come; others wait."""
        with self._turn, self._assistant.speaking(base=request.model == BASE) as model:
            tokenizer, sampling = self._assistant.tokenizer, choose_sampling(request)
            yield Stream(model, tokenizer, prompt, sampling, limit, request.stop)

    def _render(self, request: Request, name: str) -> list[int]:
        try:
            if isinstance(request, ChatRequest):
                return self._render_turns(request)
            return self._render_text(request)
        except ValueError as error:
            raise RequestError(str(error), param=name) from None

    def _render_turns(self, request: ChatRequest) -> list[int]:
        turns = [turn.plain() for turn in request.messages]
        if turns[-1]["role"] != "user" or any(each["role"] == "system" for each in turns[1:]):
            raise ValueError("the last message must be a user's; a system's can only be the first")
        return render_turns(self._assistant, turns, request.source)

    def _render_text(self, request: CompletionRequest) -> list[int]:
        """The text with its special tokens, if it has any, behind a BOS where the model has one."""
        tokenizer, prompt = self._assistant.tokenizer, request.prompt
        if isinstance(prompt, str):
            [prompt] = encode(tokenizer, [prompt])
            bos = bos_ids(tokenizer)
            prompt = prompt if bos and prompt[:1] == bos else bos + prompt
        if not prompt or not all(0 <= token < len(tokenizer) for token in prompt):
            raise ValueError("the prompt is empty, or has a number that is no token's")
        return prompt


def choose_sampling(request: Request) -> Sampling:
    """As asked for. Greedy where the request says nothing of it, as the evaluation is; OpenAI's
    temperature of 1 where it names only which tokens to draw from."""
    top_p, top_k = request.top_p or 1.0, request.top_k or 0
    temperature = request.temperature
    if temperature is None:
        temperature = 1.0 if top_p < 1 or top_k else 0.0
    seed = secrets.randbits(31) if request.seed is None else request.seed
    return Sampling(temperature, top_p, top_k, seed)
