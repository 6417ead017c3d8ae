"""Preprocess on many machines: do the stage's work with datatrove, for the stage to finish.

    python -m tools.spread models/base data/raw --tasks 64 --workers 8
    python -m tools.spread models/base data/raw --executor slurm --tasks 500 \\
        --option time=20:00:00 --option partition=cpu
    dvc repro preprocess

Both passes and the comparing of near-duplicates are cut into parts that each make one file under
data/work, which all machines must share. The stage finds the files there and only puts them
together, so the result is the same to the byte as that of one machine.
"""

import argparse
import logging
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from finetune.errors import run
from finetune.params import load
from stages.preprocess.duplicates import find_relations
from stages.preprocess.plan import fingerprint, make_examples, read_documents
from stages.preprocess.rejected import check_rejected
from stages.preprocess.shards import count_by_source
from stages.preprocess.verdicts import judge, leak_share
from stages.preprocess.work import Task, Work, open_work

log = logging.getLogger(__name__)
EXECUTORS: dict[str, type[PipelineExecutor]] = {
    "local": LocalPipelineExecutor,
    "slurm": SlurmPipelineExecutor,
    "ray": RayPipelineExecutor,
}
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 30.0  # in which a shared folder shows a file that another machine made


class MakeShards(PipelineStep):
    """A datatrove step that makes the files of every n-th task."""

    name = "shards"
    type = "preprocess"

    def __init__(self, function: Callable[[Task], None], tasks: Sequence[Task]) -> None:
        super().__init__()
        self._function, self._tasks = function, list(tasks)
        self._folder = Path.cwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Make the files of this rank that are not there yet. Ray begins in a folder of its own."""
        from contextlib import chdir  # here: what is pickled of __main__ goes without its imports

        with chdir(self._folder):
            for task in self._tasks[rank::world_size]:
                if not task.path.exists():
                    with self.track_time():
                        self._function(task)
                    self.stat_update("made")


@dataclass(frozen=True)
class SpreadWork(Work):
    """Work whose tasks an executor of datatrove runs."""

    executor: Callable[[list[PipelineStep], int, str], PipelineExecutor]

    def run(self, name: str, function: Callable[[Task], None], tasks: Sequence[Task]) -> None:
        """Make the file of each task that is not there yet; returns when all are."""
        todo = [task for task in tasks if not task.path.exists()]
        if not todo:
            return
        logs = self.folder.resolve() / "logs" / f"{name}-{time.time_ns()}"
        executor = self.executor([MakeShards(function, todo)], len(todo), str(logs))
        executor.run()
        seen = time.monotonic()
        while missing := sum(not task.path.exists() for task in todo):
            now = time.monotonic()
            seen = now if _is_running(executor) else seen
            if now - seen > PATIENCE_SECONDS:
                raise ValueError(
                    f"{name}: {missing} of {len(todo)} parts were not made and nothing works on "
                    f"them any more: the reason is in {logs}; run it again when it is mended"
                )
            log.info("%s: waiting for %d of %d parts; logs in %s", name, missing, len(todo), logs)
            time.sleep(POLL_SECONDS)


def _is_running(executor: PipelineExecutor) -> bool:
    """Whether the executor still works. Slurm's jobs outlive its call, the others end with it."""
    if not isinstance(executor, SlurmPipelineExecutor):
        return False
    words = ["squeue", "--noheader", "--jobs", str(executor.job_id)]
    asked = subprocess.run(words, capture_output=True, encoding="utf-8")
    return bool(asked.stdout.strip()) or (
        # A controller that does not answer says nothing of the job.
        asked.returncode != 0 and "Invalid job id" not in asked.stderr
    )


def main() -> None:
    arguments, params = _parse(), load()
    name = fingerprint(params, arguments.base, arguments.raw)
    with open_work(name, workers=1, keep=True) as work:
        spread = SpreadWork(work.folder, None, _executor(arguments))
        shards = read_documents(spread, params, arguments.raw)
        check_rejected(params, count_by_source(shards))
        verdicts = judge(params, shards, find_relations(spread, shards, params.preprocess))
        leak_share(params, shards, verdicts)
        make_examples(spread, params, arguments.base, shards, verdicts.split)
    log.info("all parts are in %s; run `dvc repro preprocess`", work.folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="tools.spread")
    parser.add_argument("base", type=Path, help="base model, models/base")
    parser.add_argument("raw", type=Path, help="fetched sources, data/raw")
    parser.add_argument("--executor", choices=EXECUTORS, default="local")
    parser.add_argument("--tasks", type=int, required=True, help="jobs, at most")
    parser.add_argument("--workers", type=int, default=-1, help="jobs at a time; -1 is all")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the executor"
    )
    return parser.parse_args()


def _executor(arguments: argparse.Namespace) -> Callable[..., PipelineExecutor]:
    """A function that gives an executor for a pipeline of so many parts."""
    options = dict(_option(each) for each in arguments.option)
    if arguments.executor == "slurm":
        # datatrove's own program starts a job, which finds our modules by this alone ...
        paths = [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        # ... and a job that sums up would wait for ever where a task has failed.
        options["sbatch_args"] = {"kill-on-invalid-dep": "yes"}

    def make(pipeline: list[PipelineStep], parts: int, logs: str) -> PipelineExecutor:
        tasks = min(arguments.tasks, parts)
        kind = EXECUTORS[arguments.executor]
        return kind(pipeline, tasks=tasks, workers=arguments.workers, logging_dir=logs, **options)

    return make


def _option(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option is {text!r}; write NAME=VALUE")
    return name, int(value) if value.isdecimal() else value


if __name__ == "__main__":
    run(main)
