"""The checkpoints of an interrupted run: `${DVC_ROOT:-.}/models/resume/<fingerprint>/step-N`.

They are no DVC out: DVC deletes outs before a stage runs. DVC_ROOT is the main repository under
`dvc exp run --temp` and `--queue` too, so a run finds its own state from everywhere.
"""

import fcntl
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from finetune.checkpoints import copy_sealed, find_damage, list_steps, seal
from finetune.records import write_json
from stages.train.fingerprint import differences, digest

FACTS = "fingerprint.json"

log = logging.getLogger(__name__)


class Store:
    """One run's folder. Only the main process opens, writes and prunes it."""

    def __init__(self, facts: dict[str, Any], limit: int, every: int) -> None:
        root = Path(os.environ.get("DVC_ROOT", ".")) / "models" / "resume"
        self.facts, self._limit, self._every = facts, limit, every
        self.folder = root / digest(facts)

    def open(self, fresh: bool) -> None:
        """Lock the folder until the process ends; clear it if `fresh`; prune other runs' folders.

        Raises ValueError where another process trains this very run.
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
            _prune_runs(self.folder)

    def adopt(self, explicit: Path) -> None:
        """Take in a checkpoint of this run from elsewhere, with the earlier ones beside it.

        Among those is the best, if it is an earlier one. Raises ValueError where `explicit` is
        damaged or of another run.
        """
        _check_explicit(explicit, self.facts)
        last = _step(explicit)
        for path in [explicit, *list_steps(explicit.parent).values()]:
            if find_damage(path) is None and _read(path / FACTS) == self.facts:
                target = self.folder / f"step-{_step(path)}"
                if _step(path) <= last and not target.exists():
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
        shutil.rmtree(self.partial(step), ignore_errors=True)
        self.partial(step).mkdir(parents=True)

    def commit(self, step: int, best: int | None) -> None:
        """Seal the partial folder of `step`, then remove what need not be kept."""
        write_json(self.partial(step) / FACTS, self.facts)
        seal(self.partial(step), self.folder / f"step-{step}", step=step)
        steps = list_steps(self.folder)
        for old in steps.keys() - self.kept(list(steps), best) - {step}:
            shutil.rmtree(steps[old])

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
            found = differences(self.facts, _read(others[0] / FACTS))
            log.info(f"starting at step 0: {others[0]} is of another run: {'; '.join(found[:5])}")


def _check_explicit(folder: Path, facts: dict[str, Any]) -> None:
    if not folder.is_dir():
        raise ValueError(
            f"train.resume_from is {folder}, which does not exist; DVC deletes models/checkpoints "
            "before it trains: copy the checkpoint to another folder first"
        )
    if damage := find_damage(folder):
        raise ValueError(f"train.resume_from is {folder}, which is damaged: {damage}")
    found = differences(facts, _read(folder / FACTS))
    if found:
        raise ValueError(
            f"train.resume_from is {folder}, of another run: {'; '.join(found[:5])}; "
            "to start from its adapter alone, set train.init_adapter instead"
        )


def _step(folder: Path) -> int:
    return int(_read(folder / "trainer_state.json")["global_step"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _runs(own: Path) -> list[Path]:
    """The folders of other runs, the latest first."""
    others = [path for path in own.parent.iterdir() if path.is_dir() and path != own]
    return sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def _prune_runs(own: Path) -> None:
    """Keep the latest other run that is not being trained; remove the ones before it."""
    for folder in [each for each in _runs(own) if not _is_locked(each)][1:]:
        log.info(f"removing {folder}: the state of an earlier run")
        shutil.rmtree(folder, ignore_errors=True)


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
