"""What a crawl has fetched so far, on disk: pages by address, with what is needed to ask again.

It lies outside of DVC's outs and is keyed by the source's name and hosts, so that an interrupted
crawl continues and no edit of code or params loses a page.
"""

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import time
import zlib
from pathlib import Path

from stages.fetch.captures import Page

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pages (
    url TEXT PRIMARY KEY, status INTEGER, headers TEXT, body BLOB, robots TEXT, fetched REAL,
    checked REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crawls (started REAL, finished REAL);
CREATE TABLE IF NOT EXISTS sitemaps (url TEXT PRIMARY KEY);
"""


class Store:
    """The pages of one source. Every page is on disk when `put` returns; SIGKILL loses none."""

    def __init__(self, name: str, hosts: list[str]) -> None:
        key = hashlib.sha256("\n".join(sorted(hosts)).encode()).hexdigest()[:8]
        self.folder = Path(os.environ.get("DVC_ROOT", ".")) / "data" / "crawl" / f"{name}-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w", encoding="utf-8")
        _wait_for(self._lock, self.folder)
        self._base = sqlite3.connect(self.folder / "pages.sqlite", isolation_level=None)

    def begin(self) -> float:
        """When this crawl started: now, or when the one that never finished did."""
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.executescript(_SCHEMA)
        last = self._base.execute("SELECT started FROM crawls WHERE finished IS NULL").fetchone()
        if last is None:
            self._base.execute("INSERT INTO crawls VALUES (?, NULL)", (time.time(),))
            return self.begin()
        return last[0]

    def finish(self) -> None:
        """Note that the crawl came to its end; the next one starts anew."""
        self._base.execute("UPDATE crawls SET finished = ? WHERE finished IS NULL", (time.time(),))

    def put(self, page: Page) -> None:
        """Keep a page; a later answer replaces an earlier one."""
        values = (page.url, page.status, json.dumps(page.headers), zlib.compress(page.body))
        values += (page.robots, page.fetched, page.checked)
        self._base.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def confirm(self, url: str, robots: str) -> None:
        """The server says that the page is still the same, and robots.txt what it said."""
        values = (time.time(), robots, url)
        self._base.execute("UPDATE pages SET checked = ?, robots = ? WHERE url = ?", values)

    def note_sitemaps(self, urls: list[str]) -> None:
        """Remember what robots.txt lists: where all pages are fresh it is not asked for."""
        values = [(url,) for url in urls]
        self._base.executemany("INSERT OR IGNORE INTO sitemaps VALUES (?)", values)

    def sitemaps(self) -> list[str]:
        """The sitemaps that robots.txt listed, sorted."""
        return [url for (url,) in self._base.execute("SELECT url FROM sitemaps ORDER BY url")]

    def get(self, url: str) -> Page | None:
        """The page of that address, or None."""
        row = self._base.execute("SELECT * FROM pages WHERE url = ?", (url,)).fetchone()
        if row is None:
            return None
        headers = [(name, value) for name, value in json.loads(row[2])]
        return Page(row[0], row[1], headers, zlib.decompress(row[3]), *row[4:])

    def close(self) -> None:
        """Let go of the database and the lock."""
        self._base.close()
        self._lock.close()


def _wait_for(lock, folder: Path) -> None:
    """One crawl of a source at a time: two would ask its hosts twice as often."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logging.getLogger("fetch").info("waiting for another crawl that uses %s", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
