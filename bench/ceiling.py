"""What the device can do at most: a large matrix product, for a moment and for three seconds."""

import json
import sys
import time
from typing import Any

import torch

from bench.shapes import SHAPES, count_weights
from bench.versions import find_versions

SIDE = 8192
PACKAGES = ("torch", "triton", "transformers", "peft", "bitsandbytes", "accelerate")


def main() -> None:
    config = SHAPES[sys.argv[1]]
    layers, head = count_weights(config)
    facts: dict[str, Any] = {
        "layer_weights": layers,
        "head_weights": head,
        "layers": config.num_hidden_layers,
        "versions": find_versions(PACKAGES),
    }
    if torch.cuda.is_available():
        facts["hardware"] = torch.cuda.get_device_name()
        burst, sustained = measure_products()
        facts |= {"ceiling_tflops": round(burst), "sustained_tflops": round(sustained)}
    print(json.dumps(facts))


def measure_products() -> tuple[float, float]:
    """TFLOP/s of bfloat16 products of random 8192 x 8192 matrices: of 20, and over 3 seconds.

    The second is lower: a device that is busy for long reaches its power limit.
    """
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    burst = _rate(a, b, 20)
    start, done = time.monotonic(), 0
    while time.monotonic() - start < 3:
        _rate(a, b, 20)
        done += 20
    return burst, 2 * SIDE**3 * done / (time.monotonic() - start) / 1e12


def _rate(a: torch.Tensor, b: torch.Tensor, count: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return 2 * SIDE**3 * count / begin.elapsed_time(end) / 1e9


if __name__ == "__main__":
    main()
