"""What lets the first answer come sooner: imports that leave out what answering does not need."""

import gc
import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tools.assistant import Assistant

# Threads that wait for each other give their core away. By default they keep it, spinning: beside
# another busy process the same work then takes two to four times as long. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch, transformers and bitsandbytes in two thirds of the time.

    Garbage is not looked for, as what an import makes stays. And bitsandbytes does not wrap four
    functions by torch.compile, for which all of torch's inductor is imported: they are those of
    optimizers, and of weights where no kernel of its own is. They then run as they are written.
    """
    gc.disable()
    import torch

    compile_, torch.compile = torch.compile, _leave
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compile_
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def open_assistant(arguments: Namespace, **options: Any) -> "Assistant":
    """The model that `--adapter`, `--checkpoint` and `--device` name, with the quick imports.

    `options` are those of `load_assistant`.
    """
    with quick_imports():
        from tools.assistant import find_checkpoint, load_assistant

        folder = find_checkpoint(arguments.adapter, arguments.checkpoint, arguments.checkpoints)
        return load_assistant(
            arguments.adapter,
            arguments.device,
            low_memory=arguments.low_memory,
            checkpoint=folder,
            **options,
        )


def _leave(function: Callable | None = None, **_: Any) -> Callable:
    """Stands for torch.compile, as a function and as a decorator with options."""
    return (lambda given: given) if function is None else function
