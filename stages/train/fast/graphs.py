"""Forward and backward of a micro-batch as one launch: CUDA graphs, one for each shape.

A pass over 2,000 tokens of a 7B model is some 4,000 kernels, and the processor needs longer to
launch them than the GPU to run them. A captured graph is launched at once. Its shapes are fixed, so
micro-batches are filled up to a few sizes first.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from finetune.captured import waiting_refused
from finetune.flat.batches import MicroBatch

SMALLEST_STEP = 64  # tokens; the unit of a matrix product's tiles
MARGIN = 1.5  # by which a shape must come more often than one whose graph goes for it
MOST_GRAPHS = 64  # held at a time; each takes some megabytes of launches, beside the shared memory
IGNORED = -100  # a target that costs nothing


def round_up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step


def token_step(tokens: int, parts: int = 16) -> int:
    """Sizes are multiples of this, about 1/`parts`: few sizes occur, and little is added."""
    return max(SMALLEST_STEP, 1 << max(0, tokens.bit_length() - parts.bit_length()))


def fill_up(batch: MicroBatch, longest: int, parts: int = 16) -> MicroBatch:
    """A flat `batch` filled up to a common shape with one more example, not supervised.

    The added targets are ignored ones, predicted from the last added token; the added bounds are
    those of empty examples. `longest` is the longest example of the run; at most about 1/`parts` is
    added.
    """
    inputs = dict(batch.inputs)
    tokens, bounds = batch.tokens, inputs["cu_seq_lens_q"]
    total = round_up(tokens + 1, token_step(tokens, parts))
    added = total - tokens
    inputs["input_ids"] = _append(inputs["input_ids"], torch.zeros(1, added, dtype=torch.int64))
    inputs["position_ids"] = _append(inputs["position_ids"], torch.arange(added)[None])
    examples = round_up(len(bounds) + 1, 32)
    rest = torch.full((examples - len(bounds),), total, dtype=torch.int32)
    inputs["cu_seq_lens_q"] = inputs["cu_seq_lens_k"] = torch.cat([bounds, rest])
    inputs["max_length_q"] = inputs["max_length_k"] = max(longest, added)
    targets = round_up(len(batch.targets), token_step(len(batch.targets), parts=4))
    missing = targets - len(batch.targets)
    for name in ("logits_to_keep", "read_positions"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.full((missing,), total - 1)])
    return replace(
        batch,
        inputs=inputs,
        targets=torch.cat([batch.targets, torch.full((missing,), IGNORED)]),
        rows=torch.zeros(targets, dtype=torch.int64),
        columns=torch.arange(targets),
    )


def _append(row: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    return torch.cat([row, more], dim=1)


Shape = tuple[object, ...]


class Shapes:
    """Which shapes have a graph: those that come most often, `limit` at most.

    Most shapes of a varied corpus come once, and capturing takes longer than launching: a shape is
    due at its second sight. Where there is no room, it must have come more often than the graph
    that was used least, which then goes.
    """

    def __init__(self, limit: int = MOST_GRAPHS) -> None:
        self._limit = limit
        self._sights: Counter[Shape] = Counter()
        self._graphs: dict[Shape, Any] = {}

    def __len__(self) -> int:
        return len(self._graphs)

    def find(self, shape: Shape) -> Any | None:
        """The graph of `shape`, if there is one. Counts as a sight of it."""
        self._sights[shape] += 1
        return self._graphs.get(shape)

    def is_due(self, shape: Shape) -> bool:
        """Whether `shape`, which was just looked for, is worth a graph."""
        if len(self._graphs) < self._limit:
            return self._sights[shape] >= 2
        return self._sights[shape] > MARGIN * self._sights[self._least_used()]

    def keep(self, shape: Shape, capture: Callable[[], Any]) -> Any:
        """Make and remember the graph of `shape`, after another one has gone where that must be."""
        if len(self._graphs) >= self._limit:
            del self._graphs[self._least_used()]
        self._graphs[shape] = capture()
        return self._graphs[shape]

    def _least_used(self) -> Shape:
        return min(self._graphs, key=self._sights.__getitem__)


class Graphs:
    """Captures `run` for shapes of micro-batches that come again; launches it for the rest.

    `run` takes a micro-batch on the device and a scale, and adds to the gradients of `parameters`.
    The first capture raises NotCapturable where it cannot be made.
    """

    def __init__(
        self,
        run: Callable[[MicroBatch, torch.Tensor], torch.Tensor],
        parameters: Sequence[torch.nn.Parameter],
        device: torch.device,
    ) -> None:
        self._run, self._parameters, self._device = run, list(parameters), device
        self._gradients = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._scale = torch.zeros((), device=device)
        self._pool, self._stream = torch.cuda.MemPool(), torch.cuda.Stream()
        self._shapes = Shapes()

    def begin_step(self) -> None:
        """Set the gradients to zero, where the graphs add to them."""
        torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def __call__(self, batch: MicroBatch, scale: float) -> torch.Tensor:
        """Forward and backward of `batch`, filled up; the loss times `scale`."""
        self._scale.fill_(scale)
        shape = _shape(batch)
        captured = self._shapes.find(shape)
        if captured is None:
            if not self._shapes.is_due(shape):
                return self._launch(batch.to(self._device)).clone()
            captured = self._shapes.keep(shape, partial(self._capture, batch))
        graph, static, loss = captured
        _copy(batch, static)
        graph.replay()
        return loss.clone()

    def _capture(self, batch: MicroBatch) -> tuple[torch.cuda.CUDAGraph, MicroBatch, torch.Tensor]:
        static = batch.to(self._device)
        kept = [gradient.clone() for gradient in self._gradients]
        self._launch(static)  # outside of a capture: compile, and initialise libraries
        if not len(self._shapes):
            with waiting_refused():
                self._launch(static)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool.id, stream=self._stream):
            loss = self._run(static, self._scale)
        torch._foreach_copy_(self._gradients, kept)
        return graph, static, loss

    def _launch(self, static: MicroBatch) -> torch.Tensor:
        """A pass in the graphs' own memory, which is theirs until they end.

        Elsewhere all that a pass keeps would be held a second time.
        """
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(self._pool):
            loss = self._run(static, self._scale)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss


def _shape(batch: MicroBatch) -> tuple:
    return tuple(
        tuple(value.shape) if torch.is_tensor(value) else value for value in batch.inputs.values()
    ) + (len(batch.targets),)


def _copy(batch: MicroBatch, static: MicroBatch) -> None:
    """Put the values of `batch` where the graph reads them."""
    for name, value in batch.inputs.items():
        if torch.is_tensor(value):
            static.inputs[name].copy_(value, non_blocking=True)
    static.targets.copy_(batch.targets, non_blocking=True)
