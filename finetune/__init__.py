"""What more than one stage needs."""

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("pydantic", "ruamel.yaml", "torch", "transformers", "peft", "bitsandbytes")


def _check_environment() -> None:
    """End in one line where this is not the Python that the requirements were installed for."""
    missing = [name for name in NEEDED if find_spec(name.partition(".")[0]) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} has no {missing[0]}: activate the environment that "
            "requirements.txt was installed in (. .venv/bin/activate), then run this again"
        )


_check_environment()

# Steps differ in length. Without this, each new length asks for new memory until the device is
# full, and later steps wait while it is given back. It must be set before torch is imported.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

# What torch.compile has made is kept beside the weights, where the next run finds it: the usual
# place is a temporary folder. torch itself keeps apart what another version or device made.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path(__file__).resolve().parents[1] / "models/cache/compiled")
)

# At its import, on a CPU with AVX512-BF16, bitsandbytes asks for a package of kernels for
# inference. Weights are unpacked by other ones here, so there is nothing to mend.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
