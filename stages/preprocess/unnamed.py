"""Only the sources of params.yaml are in data/raw, since all of it is a dependency of the stage."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)


def put_aside(raw: Path, names: Sequence[str]) -> None:
    """Move folders of sources that are no longer named to data/unnamed, and say so.

    Left where they are, they would be part of the sum of data/raw in dvc.lock, which no clone has.
    """
    unnamed = raw.parent / "unnamed"
    for folder in sorted(raw.iterdir()) if raw.is_dir() else ():
        if not folder.is_dir() or folder.name in names or folder.name.startswith("."):
            continue
        unnamed.mkdir(exist_ok=True)
        target = unnamed / folder.name
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(folder, target)
        log.warning("%s is no source of params.yaml; moved to %s, yours to delete", folder, target)
