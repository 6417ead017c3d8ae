"""The checkpoints of an interrupted run: `${DVC_ROOT:-.}/models/resume/<fingerprint>/step-N`.

They are no DVC out: DVC deletes outs before a stage runs. DVC_ROOT is the main repository under
`dvc exp run --temp` and `--queue` too, so a run finds its own state from everywhere.
"""

import fcntl
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from finetune.checkpoints import copy_sealed, find_damage, list_steps, read_step, seal
from finetune.records import write_json
from stages.train.fingerprint import FACTS, differences, digest, read_facts

FINISHED = "finished"  # a file of that name lies in the folder of a run whose outs are written

log = logging.getLogger(__name__)


class Store:
    """One run's folder. Only the main process opens, writes and prunes it.

    `limit` last checkpoints are kept of a run that saves `every` so many steps, and the states of
    `unfinished` other runs that were interrupted.
    """

    def __init__(self, facts: dict[str, Any], limit: int, every: int, unfinished: int) -> None:
        root = Path(os.environ.get("DVC_ROOT", ".")) / "models" / "resume"
        self.facts, self._limit, self._every = facts, limit, every
        self._unfinished = unfinished
        self.folder = root / digest(facts)

    def open(self, fresh: bool, start: Path | None = None) -> None:
        """Lock the folder until the process ends; clear it if `fresh`; prune other runs' folders.

        The folder in which `start` is stays. Raises ValueError where another process trains this
        very run.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        # One opens at a time: a folder that is made but not locked yet must not be pruned.
        with (self.folder.parent / ".lock").open("w", encoding="utf-8") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self.folder.mkdir(exist_ok=True)
            self._lock = _lock(self.folder)
            if self._lock is None:
                raise ValueError(
                    f"{self.folder} is locked: another process trains this run; wait, or end it"
                )
            self._clear("*" if fresh else ".step-*")
            if not list_steps(self.folder):
                self._explain_start()
            write_json(self.folder / FACTS, self.facts)
            others = [each for each in _runs(self.folder) if not _is_within(start, each)]
            _prune_runs(others, self._unfinished)

    def adopt(self, explicit: Path) -> None:
        """Take in a checkpoint from elsewhere, with the earlier ones of its run beside it.

        Among those is the best, if it is an earlier one. `describe_run` has checked that `explicit`
        is whole and of this run, or may be continued as this one.
        """
        last, facts = read_step(explicit), read_facts(explicit)
        for path in [explicit, *list_steps(explicit.parent).values()]:
            if find_damage(path) is None and read_facts(path) == facts:
                target = self.folder / f"step-{read_step(path)}"
                if read_step(path) <= last and not target.exists():
                    copy_sealed(path, target)

    def newest(self) -> Path | None:
        """The newest whole checkpoint of this run; None to start at step 0.

        A damaged one is named in the log, and the one before it taken.
        """
        for _, path in sorted(list_steps(self.folder).items(), reverse=True):
            damage = find_damage(path)
            if damage is None:
                return path
            log.warning(f"warning: {path} is not used: {damage}")
        return None

    def partial(self, step: int) -> Path:
        """Where a checkpoint is written before it is whole."""
        return self.folder / f".step-{step}.partial"

    def begin(self, step: int) -> None:
        """Make an empty partial folder."""
        (self.folder / FINISHED).unlink(missing_ok=True)
        shutil.rmtree(self.partial(step), ignore_errors=True)
        self.partial(step).mkdir(parents=True)

    def commit(self, step: int, best: int | None) -> None:
        """Seal the partial folder of `step`, then remove what need not be kept."""
        write_json(self.partial(step) / FACTS, self.facts)
        seal(self.partial(step), self.folder / f"step-{step}", step=step)
        steps = list_steps(self.folder)
        for old in steps.keys() - self.kept(list(steps), best) - {step}:
            shutil.rmtree(steps[old])

    def finish(self) -> None:
        """The outs are written: from now on this state is the first to be removed."""
        (self.folder / FINISHED).touch()

    def kept(self, steps: list[int], best: int | None) -> set[int]:
        """Of `steps`, the best and the last few of those that every run of this kind saves.

        What an interruption saved in between must not push one of them out: the outs would differ.
        """
        scheduled = sorted(step for step in steps if step % self._every == 0)
        last = {max(steps)} if steps else set()
        regular = sorted({*scheduled, *last})[-self._limit :]
        return {*regular, *({best} & set(steps))}

    def _clear(self, pattern: str) -> None:
        """Remove what was left half written, or everything."""
        for path in self.folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != ".lock":
                path.unlink()

    def _explain_start(self) -> None:
        """Say what differs from the latest other run that left a state."""
        others = [each for each in _runs(self.folder) if list_steps(each)]
        if others:
            found = differences(self.facts, read_facts(others[0]))
            log.info(f"starting at step 0: {others[0]} is of another run: {'; '.join(found[:5])}")


def _runs(own: Path) -> list[Path]:
    """The folders of other runs, the latest first."""
    others = [path for path in own.parent.iterdir() if path.is_dir() and path != own]
    return sorted(others, key=_last_saved, reverse=True)


def _last_saved(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *list_steps(folder).values()))


def _prune_runs(others: list[Path], unfinished: int) -> None:
    """Of runs that nobody trains, keep the latest finished one and some unfinished ones.

    `others` are folders, the latest first. What is kept and what goes is told.
    """
    idle = [each for each in others if not _is_locked(each)]
    finished = [each for each in idle if (each / FINISHED).exists()]
    begun = [each for each in idle if each not in finished and list_steps(each)]
    empty = [each for each in idle if each not in finished and each not in begun]
    if kept := begun[:unfinished]:
        log.info(f"keeping the state of {len(kept)} unfinished: {', '.join(map(_words, kept))}")
    for folder in empty:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in finished[1:]:
        log.info(f"removing {_words(folder)}: the state of an earlier run, which had finished")
        shutil.rmtree(folder, ignore_errors=True)
    for folder in begun[unfinished:]:
        log.warning(
            f"warning: removing {_words(folder)}, which had not finished: "
            f"train.keep_unfinished is {unfinished}"
        )
        shutil.rmtree(folder, ignore_errors=True)


def _words(folder: Path) -> str:
    return f"{folder} (step {max(list_steps(folder), default=0)})"


def _is_within(path: Path | None, folder: Path) -> bool:
    return path is not None and folder.resolve() in path.resolve().parents


def _is_locked(folder: Path) -> bool:
    file = _lock(folder)
    if file:
        file.close()
    return file is None


def _lock(folder: Path) -> Any:
    """An open, locked file; None if another process holds it. The lock ends with the process."""
    file = (folder / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
