"""llama.cpp in this process, by the package xllamacpp: answers of a GGUF file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONTEXT = 4096


def open_model(path: Path, adapter: Path | None = None) -> Callable[[Sequence[int], int], str]:
    """A function that answers a prompt of token ids, greedily, in at most so many tokens.

    Raises ValueError where xllamacpp is not installed.
    """
    try:
        import xllamacpp
    except ImportError:
        raise ValueError(
            "scoring GGUF needs llama.cpp: pip install xllamacpp, or --rows 0 to leave it out"
        ) from None
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = CONTEXT, 1, 0
    settings.verbosity = -1
    if adapter is not None:
        found = xllamacpp.CommonAdapterLoraInfo()
        found.path, found.scale = str(adapter), 1.0
        settings.lora_adapters = [found]
    server = xllamacpp.Server(settings)

    def answer(prompt: Sequence[int], tokens: int) -> str:
        request: dict[str, Any] = {"prompt": list(prompt), "n_predict": tokens, "temperature": 0.0}
        request |= {"top_k": 1, "cache_prompt": False, "stream": False}
        reply = server.handle_completions(request)
        if "content" in reply:
            return reply["content"]
        return reply["choices"][0]["text"]

    return answer
