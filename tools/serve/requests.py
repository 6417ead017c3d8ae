"""The requests of OpenAI's interface that are understood, and how others are refused.

What would change the answer and cannot be done is refused, by name; what would not (`user`,
`metadata`, ...) is let pass.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

# What clients send of themselves although it asks for nothing.
NEUTRAL = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "suffix": ("",),
    "min_p": (0,),
    "repetition_penalty": (1,),
    # vLLM's and SGLang's.
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "prompt_logprobs": (0,),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "documents": ([],),
}


class RequestError(Exception):
    """A request that is refused, with what OpenAI's error object says of it."""

    def __init__(
        self, message: str, status: int = 400, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def _as_list(value: Any) -> Any:
    return [] if value is None else [value] if isinstance(value, str) else value


def _joined(value: Any) -> Any:
    """The text of a turn's content, which may come in parts."""
    if not isinstance(value, list):
        return _whole(value)
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ValueError("only parts of type text can be read")
    return _whole("".join(str(part.get("text", "")) for part in value))


def _whole(value: Any) -> Any:
    """Refuse half a character: JSON can hold a lone surrogate, no tokenizer can."""
    if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
        raise ValueError("half a character (a surrogate alone): send whole ones")
    return value


Text = Annotated[str, BeforeValidator(_whole), Field(min_length=1)]


class Turn(BaseModel):
    """One message. A developer's is a system's."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]

    def plain(self) -> dict[str, str]:
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class StreamOptions(BaseModel):
    """Whether a last chunk counts the tokens."""

    include_usage: bool = False


class Request(BaseModel):
    """What both endpoints take. `top_k` and `source` are not OpenAI's."""

    model_config = ConfigDict(extra="allow")
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Annotated[list[Text], BeforeValidator(_as_list), Field(max_length=4)] = []
    source: str | None = None

    @property
    def limit(self) -> int | None:
        """The tokens that the client allows for the answer."""
        return self.max_tokens


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Request):
    """POST /v1/completions: a text, or its token ids, as they are."""

    prompt: Annotated[str | list[int], BeforeValidator(_whole)]


Kind = TypeVar("Kind", bound=Request)


def read_request(kind: type[Kind], body: Any) -> Kind:
    """The request that `body` is. Raises RequestError naming the field that is wrong or that asks
    for what cannot be done."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    for name, neutral in NEUTRAL.items():
        if (value := body.get(name)) is not None and value not in neutral:
            raise RequestError(f"{name} is not supported: leave it out", param=name)
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{place}: {first['msg']}", param=place) from None
