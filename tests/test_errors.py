"""What a user can mend ends in one line; a fault of the program keeps its traceback."""

import errno

import pytest
import torch

from finetune.errors import run


def _end(error: Exception) -> str:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    return str(end.value.code)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the docs"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't "
                     "allocate memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
)  # fmt: skip
def test_a_lack_of_memory_is_one_line_with_a_remedy(error):
    words = _end(error)
    assert words.startswith("error: out of memory (") and len(words.splitlines()) == 1
    assert "train.memory to auto" in words and "evaluate.micro_batch_tokens" in words


def test_a_full_disk_is_named():
    words = _end(OSError(errno.ENOSPC, "No space left on device", "models/resume/abc"))
    assert (
        words == "error: no space left on the disk of models/resume/abc: make room, then run again"
    )


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run(main)
