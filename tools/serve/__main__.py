"""Try the trained adapter with any client of OpenAI's interface. Not for production.

    python -m tools.serve
    curl http://127.0.0.1:8000/v1/models

One loaded model under two names: that of the run (`name` in params.yaml) with the adapter, and
`base` without it. Requests are answered one after another; there is no authentication and no
encryption.
"""

import argparse
import logging
from pathlib import Path

from finetune.errors import run
from tools import quick_start
from tools.serve.server import Server

log = logging.getLogger(__name__)


def main() -> None:
    arguments = _parse()
    if arguments.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens is {arguments.max_new_tokens}: at least 1")
    with Server(arguments.host, arguments.port) as server:
        prepare(server, arguments)
        log.info(f"{' and '.join(server.service.names)} at {server.address} (Ctrl-C ends)")
        log.info("for trying only, not for production: no authentication, one answer at a time")
        if not server.is_loopback:
            log.warning(f"warning: whoever reaches {arguments.host} can ask")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("ended")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.serve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: reached by this machine only")
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0: any free one")
    parser.add_argument("--adapter", type=Path, default=Path("models/adapter"))
    parser.add_argument("--checkpoint", metavar="NAME", help="last or step-N instead of the best")
    parser.add_argument("--checkpoints", type=Path, default=Path("models/checkpoints"))
    parser.add_argument("--low-memory", action="store_true", help="keep weights in 4 bits")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, help="default 512, where the client names none"
    )
    return parser.parse_args()


def prepare(server: Server, arguments: argparse.Namespace) -> None:
    """Load the model."""
    assistant = quick_start.open_assistant(arguments)
    from tools.serve.service import Service

    server.service = Service(assistant, arguments.max_new_tokens)


if __name__ == "__main__":
    run(main)
