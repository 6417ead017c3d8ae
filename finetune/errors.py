"""How a stage ends when its user can mend the cause: one line, no traceback, exit code 1."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

REMEDY = (
    "set train.memory to auto and quantization.dequantize to false, lower train.micro_batch_tokens "
    "or evaluate.micro_batch_tokens, lower preprocess.max_length, or use a larger device"
)


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; turn ValueError, OSError and a lack of memory into one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        # A letter that the terminal's encoding lacks must not end a run.
        stream.reconfigure(errors="backslashreplace")
    # Transformers warns of names that peft uses: nothing that a user could mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for library in ("httpx", "httpx2", "filelock", "fsspec"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {_words(error)}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0] or "the machine's memory is full"
        sys.exit(f"error: out of memory ({first}): {REMEDY}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that device or machine have no memory left.

    By its words: torch, its allocators and bitsandbytes raise several kinds, and torch is not to
    be imported for a stage that does without.
    """
    words = ("out of memory", "not enough memory", "can't allocate memory")
    kinds = (MemoryError,) if "torch" not in sys.modules else _kinds()
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


def _kinds() -> tuple[type[BaseException], ...]:
    return MemoryError, sys.modules["torch"].OutOfMemoryError


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        place = error.filename or Path.cwd()
        return f"no space left on the disk of {place}: make room, then run again"
    return str(error)
