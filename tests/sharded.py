"""The train stage with accelerate's FSDP on CPUs, which accelerate itself does on GPUs only.

`python -m tests.sharded AT ...` runs it with what `accelerate launch` has put into the environment.
AT is `nothing`, or what `tests.sessions` lets happen inside.
"""

import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType


def main() -> None:
    _call_cpus_gpus()
    from finetune.errors import run
    from stages.train import __main__ as stage
    from tests import sessions

    if (at := sys.argv.pop(1)) != "nothing":
        sessions.arm(*at.split())
    run(stage.main)


def _call_cpus_gpus() -> None:
    """Only processes on GPUs are asked whether they want FSDP."""
    initialise = PartialState.__init__

    def pretend(self: PartialState, *args: object, **options: object) -> None:
        initialise(self, *args, **options)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = pretend


if __name__ == "__main__":
    main()
