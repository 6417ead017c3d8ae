"""The judge's replies, kept in one JSON Lines file: nothing is asked twice.

The file is DVC's to track, which may have made it a read-only link into its cache: so new replies
go to a journal beside it, and a whole new file takes its place at the end.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.judge.server import Reply


@dataclass(frozen=True)
class Kept:
    """A reply and what it is of: `key` is that of the request, `order` `ab` or `ba`."""

    key: str
    id: str
    order: str
    model: str
    reply: Reply


def request_key(body: Mapping[str, Any]) -> str:
    """16 digits of all that is asked: prompt, question, both answers in order, model, settings."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Replies:
    """The replies of a file by their key, those of an interrupted run included."""

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, path.with_name(f".{path.name}.partial")
        self._kept = {each.key: each for each in _read(path, torn=False)}
        self._kept |= {each.key: each for each in _read(self._journal, torn=True)}

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def __getitem__(self, key: str) -> Reply:
        return self._kept[key].reply

    @contextmanager
    def adding(self) -> Iterator["Replies"]:
        """Within it `add` may be called. Whatever ends it, what was added is kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _mend(self._journal)
        with self._journal.open("a", encoding="utf-8", newline="\n") as self._file:
            yield self

    def add(self, kept: Kept) -> None:
        """Keep a reply: on the disk when this returns."""
        self._file.write(_line(kept))
        self._file.flush()
        self._kept[kept.key] = kept

    def finish(self) -> None:
        """Write the whole file, in an order that does not depend on who answered first."""
        order = sorted(self._kept.values(), key=lambda each: (each.id, each.order, each.key))
        text = "".join(map(_line, order))
        if not self.path.exists() or self.path.read_text(encoding="utf-8") != text:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f".{self.path.name}.whole")
            partial.write_text(text, encoding="utf-8", newline="\n")
            partial.rename(self.path)
        self._journal.unlink(missing_ok=True)


def _line(kept: Kept) -> str:
    entry = asdict(kept)
    return json.dumps(entry | entry.pop("reply"), ensure_ascii=False) + "\n"


def _read(path: Path, *, torn: bool) -> Iterator[Kept]:
    """The replies of a file; with `torn` a last line that was cut off does not count."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line or (torn and number == len(lines)):
            continue
        try:
            entry = json.loads(line)
            words = {name: entry.pop(name) for name in ("key", "id", "order", "model")}
            yield Kept(**words, reply=Reply(**entry))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"{path}:{number} is no reply of a judge: remove the line, or the file"
            ) from None


def _mend(journal: Path) -> None:
    """Cut a line off that a killed process left unfinished."""
    if journal.exists():
        data = journal.read_bytes()
        journal.write_bytes(data[: data.rfind(b"\n") + 1])
