"""Steps of greedy decoding in fixed memory, replayed from one CUDA graph.

A step of a 7B model is some 2,000 kernels, which the host launches more slowly than the device
runs them. With keys, values, mask and positions in memory that does not move, a step is captured
once and replayed for every token of every batch that fits into it. The numbers are those of
launched steps; columns that nobody wrote yet are masked.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from finetune.flat.attention import takes_flat

# Replays between two looks at the device, each of which waits for it.
STRIDE = 4
ROOM = 0.9  # of the free memory


class NotCapturable(Exception):
    """Why something can only be launched: it makes the host wait for the device, or has no room."""


@contextmanager
def waiting_refused() -> Iterator[None]:
    """Within, what makes the host wait for the device raises NotCapturable.

    To find out before a capture: one that fails leaves the device's memory in disorder.
    """
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_sync_debug_mode("error")
        yield
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        raise NotCapturable(str(error).splitlines()[0]) from None
    finally:
        _set_sync_debug_mode(before)


def _set_sync_debug_mode(mode: int | str) -> None:
    with warnings.catch_warnings():
        # That it does not yet detect all of them: true, and the capture would fail, as without.
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode(mode)


class FixedLayer(DynamicLayer):
    """Keys and values [rows, heads, columns, size] of one layer, written in place at `column`."""

    def __init__(self, like: DynamicLayer, rows: int, columns: int, column: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = (
            each.new_zeros(rows, each.shape[1], columns, each.shape[3])
            for each in (like.keys, like.values)
        )
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True
        self._column = column

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All columns, after those of one token were written."""
        self.keys.index_copy_(2, self._column, key_states)
        self.values.index_copy_(2, self._column, value_states)
        return self.keys, self.values

    def load(self, layer: DynamicLayer) -> None:
        """Take over what `layer` holds, into the first rows and columns."""
        rows, _, columns, _ = layer.keys.shape
        self.keys[:rows, :, :columns] = layer.keys
        self.values[:rows, :, :columns] = layer.values


class CapturedSteps:
    """Steps of batches of up to `rows` rows and `columns` columns.

    `cache` is one of the model's, with something in it. Raises NotCapturable where the device's
    memory is too small for them, and where a step makes the host wait. Not `captured`, the same
    steps are launched.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: DynamicCache,
        shape: tuple[int, int],
        stops: list[int],
        captured: bool,
    ) -> None:
        device = model.get_input_embeddings().weight.device
        self.rows, self.columns = rows, columns = shape
        if captured:
            _check_room(cache, rows * columns, device)
        self._model, self._stops = model, torch.tensor(stops, device=device)
        self._token, self._position = torch.zeros(2, rows, 1, dtype=torch.int64, device=device)
        self._column = torch.zeros(1, dtype=torch.int64, device=device)
        self._mask = torch.zeros(rows, 1, 1, columns, dtype=torch.bool, device=device)
        self._ended = torch.zeros(rows, dtype=torch.bool, device=device)
        self._cache = DynamicCache()
        self._cache.layers = [
            FixedLayer(layer, rows, columns, self._column) for layer in cache.layers
        ]
        self._logits: torch.Tensor | None = None
        self._replay = self._capture() if captured else self._step

    def run(
        self, cache: DynamicCache, token: torch.Tensor, mask: torch.Tensor, most: int
    ) -> list[list[int]]:
        """The tokens that follow in each row, until all have ended or `most` are written.

        `token` is the last of each prompt, int64 [rows, 1]; `mask`, 0 where padded, int64 [rows,
        columns], counts it; `cache` holds the keys and values of those before it.
        """
        self._load(cache, token, mask)
        written = []
        while len(written) < most:
            self._replay()
            written.append(self._token[: len(token)].clone())
            if len(written) % STRIDE == 0 and bool(self._ended.all()):
                break
        return torch.cat(written, dim=1).tolist()

    def first_logits(
        self, cache: DynamicCache, token: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The logits [rows, words] from which `run` takes its first tokens."""
        self.run(cache, token, mask, most=1)
        return self._logits[: len(token)]

    def _load(self, cache: DynamicCache, token: torch.Tensor, mask: torch.Tensor) -> None:
        rows, width = mask.shape
        for own, layer in zip(self._cache.layers, cache.layers, strict=True):
            own.load(layer)
        self._mask.zero_()
        self._mask[:rows, 0, 0, :width] = mask.bool()
        self._mask[rows:, 0, 0, 0] = True  # rows of nobody look at something, whatever it is
        self._token[:rows], self._column[:] = token, width - 1
        self._position[:rows] = mask.sum(1, keepdim=True) - 1
        self._ended[:rows], self._ended[rows:] = False, True

    def _step(self) -> None:
        self._mask.index_fill_(3, self._column, True)
        output = self._model(
            input_ids=self._token,
            attention_mask=self._mask,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._logits = output.logits[:, -1]
        self._token.copy_(self._logits.argmax(-1, keepdim=True))
        self._ended |= (self._token == self._stops).any(1)
        self._position += 1
        self._column += 1

    def _capture(self) -> Callable[[], None]:
        self._mask[:, 0, 0, 0] = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step()  # initialises libraries, which may wait
            with waiting_refused():
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        return graph.replay


def why_not(model: PreTrainedModel, cache: DynamicCache) -> str | None:
    """Why a model whose prompts were read into `cache` cannot be stepped like this; None if it can.

    Sliding windows, recurrent states and attention that is not this project's are launched.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    if not takes_flat(base):
        return "its attention is not this project's"
    if others := {type(layer) for layer in cache.layers} - {DynamicLayer}:
        return f"its cache has layers of {', '.join(sorted(each.__name__ for each in others))}"
    return None


def rounded_up(number: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, ...: few shapes, which come again."""
    power = 1 << (number - 1).bit_length()
    return power * 3 // 4 if power >= 4 and number <= power * 3 // 4 else power


def _check_room(cache: DynamicCache, tokens: int, device: torch.device) -> None:
    """What batches took beside the weights until now must still fit beside the fixed memory."""
    held = sum(
        each.shape[1] * each.shape[3] * each.element_size()
        for layer in cache.layers
        for each in (layer.keys, layer.values)
    )
    now = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - now
    if tokens * held + torch.cuda.max_memory_allocated(device) - now > ROOM * free:
        raise NotCapturable(f"no memory for {tokens * held / 1e9:.1f} GB of keys and values")
