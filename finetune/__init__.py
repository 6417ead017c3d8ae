"""What more than one stage needs."""

import logging
import os

# Steps differ in length. Without this, each new length asks for new memory until the device is
# full, and later steps wait while it is given back. It must be set before torch is imported.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

# At its import, on a CPU with AVX512-BF16, bitsandbytes asks for a package of kernels for
# inference. Weights are unpacked by other ones here, so there is nothing to mend.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
