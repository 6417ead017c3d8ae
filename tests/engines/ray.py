"""Ray: the tasks of preprocess run on a cluster of two nodes, and leave the bytes of one machine.

    pip install ray              # into an environment of its own: requirements.txt does without it
    python -m tests.engines.ray

A Ray cluster of two nodes of two CPUs each is begun on this machine, and stopped at the end.
"""

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tests.engines.common import PREPARED, compare, digests, prepare, run_trials
from tests.repository import Repository
from tests.trials.common import remove


def main() -> None:
    if find_spec("ray") is None:
        sys.exit("there is no ray: pip install ray, into an environment of its own")
    with tempfile.TemporaryDirectory() as folder:
        repository = prepare(Path(folder))
        run_trials([("preprocess spread over a cluster", lambda: spread(repository))])


def spread(repository: Repository) -> tuple[str, str]:
    """tools.spread on the cluster, then the stage, which puts together what was made there."""
    from ray.cluster_utils import Cluster

    expected = digests(repository.folder, PREPARED)
    for name in (*PREPARED, "data/work", ".dvc/cache/runs"):
        remove(repository.folder / name)
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        begun = time.monotonic()
        tool = "timeout 600 python -m tools.spread models/base data/raw --executor ray --tasks 4"
        repository.run(*tool.split(), RAY_ADDRESS=cluster.address)
        seconds = time.monotonic() - begun
    finally:
        cluster.shutdown()
    repository.run("dvc", "repro", "--force", "--single-item", "preprocess")
    left = list((repository.folder / "data/work").glob("preprocess-*"))
    wrong = f"{left[0]} was not used" if left else ""
    return f"two nodes, {seconds:.0f} s", wrong or compare(repository.folder, PREPARED, expected)


if __name__ == "__main__":
    sys.exit(main())
