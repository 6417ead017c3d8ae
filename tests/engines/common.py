"""What the scripts share: a tiny repository, the bytes of outs, what differs between two."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tests.repository import ROOT as ROOT


def digests(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Path -> sha256 of every file under each of these files and folders."""
    found = {}
    for name in names:
        for path in [root / name, *sorted((root / name).rglob("*"))]:
            if path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                found[str(path.relative_to(root))] = digest
    return found


def compare(root: Path, names: Iterable[str], expected: dict[str, str]) -> str:
    """What differs from what was expected; "" where nothing does."""
    found = digests(root, names)
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    return f"differ: {', '.join(wrong[:5])}" if wrong or not expected else ""
