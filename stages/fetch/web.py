"""Crawl one site that allows the use of its pages: python -m stages.fetch.web NAME OUT.

In: the source in params.yaml, and the crawl store under data/crawl, which is kept. Out: the pages
that are allowed as capture.warc.gz, a row for each with its licence, and a manifest with the
reason for every other address.
"""

import logging
import re
import sqlite3
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from finetune import errors, params
from finetune.records import RowWriter
from stages.fetch.captures import CAPTURE, CaptureWriter, row_of
from stages.fetch.crawler import crawl
from stages.fetch.judging import Kept
from stages.fetch.scope import hosts_of
from stages.fetch.sources import arguments
from stages.fetch.store import Store

log = logging.getLogger("fetch")

EXAMPLES = 3  # addresses that the manifest gives for each reason


def main() -> None:
    name, out, source = arguments(__doc__, "web")
    check(name, source)
    store = Store(name, hosts_of(source))
    try:
        outcomes = crawl(source, store)
        count = write(out, name, source, store, outcomes)
        store.finish()
    except sqlite3.Error as error:
        raise OSError(f"{store.folder}: {error}; is the disk full, or the file broken?") from None
    finally:
        store.close()
    log.info("fetch %s: %d pages of %d addresses%s", name, count, len(outcomes), told(outcomes))


def check(name: str, source: params.Web) -> None:
    """Raise ValueError for a source that names nobody, or nothing to fetch."""
    if not re.search(r"[^\s@]+@[^\s@]+\.\w+|https?://\S+\.\w+", source.contact):
        raise ValueError(
            f"data.web.{name}.contact is {source.contact!r}: give an e-mail address or a page "
            "through which the owner of a site can reach you"
        )
    for url in (*source.start_urls, *source.sitemaps):
        if not re.match(r"https?://[^/@\s]+(/|$)", url):
            raise ValueError(f"data.web.{name}: {url!r} is no address that starts with http(s)://")
    if not source.start_urls and not source.sitemaps:
        raise ValueError(f"data.web.{name} has neither start_urls nor sitemaps")


def write(
    out: Path, name: str, source: params.Web, store: Store, outcomes: dict[str, Kept | str]
) -> int:
    """Write the pages that are kept, in the order of their addresses; returns their number."""
    documents = []
    with RowWriter(out) as writer, (writer.partial / CAPTURE).open("wb") as file:
        capture = CaptureWriter(file)
        for url in sorted(url for url, outcome in outcomes.items() if isinstance(outcome, Kept)):
            page, kept = store.get(url), outcomes[url]
            raw = row_of(page, capture.write(page), "", kept.license, kept.evidence)
            writer.write(raw)
            documents.append({k: v for k, v in asdict(raw).items() if k not in ("row", "split")})
        if not documents:
            raise ValueError(f"data.web.{name}: no page may be used{told(outcomes)}")
        manifest = {"source": name, "kind": "web", "parameters": asdict(source)}
        writer.write_manifest({**manifest, "documents": documents, **summary(outcomes)})
    return len(documents)


def summary(outcomes: dict[str, Kept | str]) -> dict:
    """How many addresses came to which end, with the first few of each."""
    reasons: dict[str, list[str]] = {}
    for url, outcome in sorted(outcomes.items()):
        reasons.setdefault("kept" if isinstance(outcome, Kept) else outcome, []).append(url)
    counts = {reason: len(urls) for reason, urls in reasons.items()}
    examples = {reason: urls[:EXAMPLES] for reason, urls in reasons.items() if reason != "kept"}
    return {"counts": counts, "examples": examples}


def told(outcomes: dict[str, Kept | str]) -> str:
    """What was refused, most frequent first, as `; 3 x no licence found`."""
    counts = Counter(outcome for outcome in outcomes.values() if isinstance(outcome, str))
    return "".join(f"; {count} x {reason}" for reason, count in counts.most_common())


if __name__ == "__main__":
    errors.run(main)
