"""How a stage ends when its user can mend the cause: one line, no traceback, exit code 1."""

import logging
import sys
import warnings
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; turn ValueError and OSError (input, disk, network) into one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Transformers warns of names that peft uses: nothing that a user could mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    for library in ("httpx", "httpx2", "filelock", "fsspec"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
