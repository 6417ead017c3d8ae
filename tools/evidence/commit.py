"""The commit that a run is at: its hash and date, where it is published, what differs from it."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

PUBLIC = ("http", "https", "ssh", "git")


@dataclass(frozen=True)
class Commit:
    """`repository` is the address of `origin` without user and password, None where it has none
    that others could use; `changed` are the paths that differ from the commit, or are not in it."""

    sha: str
    date: datetime
    repository: str | None
    changed: list[str]


def read_commit(root: Path, besides: Path | None = None) -> Commit:
    """The commit of `root`; changes in the folder `besides` do not count.

    Raises ValueError where `root` is no git repository with a commit.
    """
    try:
        sha, date = _git(root, "show", "-s", "--format=%H %cI", "HEAD").split()
    except subprocess.CalledProcessError:
        raise ValueError(f"{root.absolute()} has no git commit: commit the run first") from None
    # -z: paths as they are, each ended by NUL; a renamed one is followed by its old name.
    status = ["status", "--porcelain", "-z", "--no-renames", "--", "."]
    if besides and besides.absolute().is_relative_to(root.absolute()):
        status.append(f":(exclude){besides.absolute().relative_to(root.absolute())}")
    listed = _git(root, *status).split("\0")
    when = datetime.fromisoformat(date).astimezone(UTC)
    return Commit(sha, when, _address(root), sorted(line[3:] for line in listed if line))


def _address(root: Path) -> str | None:
    try:
        return public_address(_git(root, "remote", "get-url", "origin").strip())
    except subprocess.CalledProcessError:
        return None


def public_address(address: str) -> str | None:
    """The address of a repository without what may be a secret; None for a folder."""
    if "://" not in address:  # git@host:owner/name, or a folder
        host, colon, path = address.partition(":")
        if not colon or "/" in host:
            return None
        address = f"ssh://{host}/{path}"
    parts = urlsplit(address)
    if parts.scheme not in PUBLIC or not parts.hostname:
        return None
    host = parts.hostname + (f":{parts.port}" if parts.port else "")
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *words],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    ).stdout
