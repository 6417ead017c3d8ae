"""What more than one stage needs."""

import logging

# At its import, on a CPU with AVX512-BF16, bitsandbytes asks for a package of kernels for
# inference. Weights are unpacked by other ones here, so there is nothing to mend.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
