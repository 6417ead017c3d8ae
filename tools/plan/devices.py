"""What `--device` may name: a GPU with its memory, or gigabytes alone."""

import re
from dataclasses import dataclass

# Name -> marketed memory in GB, what torch.cuda.get_device_name says of it, and compute capability.
KNOWN = {
    "t4-16": (16, "Tesla T4", (7, 5)),
    "v100-32": (32, "V100", (7, 0)),
    "a10-24": (24, "A10", (8, 6)),
    "rtx-3090-24": (24, "RTX 3090", (8, 6)),
    "rtx-4090-24": (24, "RTX 4090", (8, 9)),
    "rtx-5090-32": (32, "RTX 5090", (12, 0)),
    "l4-24": (24, "L4", (8, 9)),
    "l40s-48": (48, "L40S", (8, 9)),
    "a6000-48": (48, "RTX A6000", (8, 6)),
    "a100-40": (40, "A100", (8, 0)),
    "a100-80": (80, "A100", (8, 0)),
    "h100-80": (80, "H100", (9, 0)),
    "h200-141": (141, "H200", (9, 0)),
    "b200-180": (180, "B200", (10, 0)),
}
SIZES = ("12", "16", "24", "48", "80", "141")  # shown where no device is named


@dataclass(frozen=True)
class Device:
    """A GPU. `memory` in bytes, a GB being 10^9, so rather less than the card has; `kind` is a part
    of its name, or None for memory alone."""

    name: str
    memory: int
    kind: str | None = None
    capability: tuple[int, int] | None = None
    available: int | None = None  # bytes that are left on a device of this machine


def find_device(name: str) -> Device:
    """The device of that name. Raises ValueError, with all names, for another."""
    lower = name.lower()
    if lower in KNOWN:
        gigabytes, kind, capability = KNOWN[lower]
        return Device(lower, int(gigabytes * 1e9), kind, capability)
    if re.fullmatch(r"\d+(\.\d+)?", lower) and float(lower) > 0:
        return Device(f"{lower} GB", int(float(lower) * 1e9))
    raise ValueError(f"--device is {name}: name gigabytes, as in 24, or one of {', '.join(KNOWN)}")


def this_device() -> Device | None:
    """The first CUDA device of this machine, with what is left of it now; None without one."""
    import torch

    from finetune.model.memory import available_bytes

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Device(
        "this machine's",
        found.total_memory,
        found.name,
        (found.major, found.minor),
        available_bytes(torch.device("cuda", 0)),
    )
