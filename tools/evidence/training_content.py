"""Inputs for the public summary of training content that Article 53(1)(d) of the AI Act asks for.

Not the summary: the provider writes that, in the AI Office's template (24 July 2025), for a
general-purpose model only. This gives what the run knows, under the template's headings; null is
what only the provider knows. Of a tuned model it covers what was added to the base, not the base.
"""

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stages.fetch.captures import CAPTURE
from stages.fetch.reservations import AGENT
from tools.record import Record, Source

WHAT = (
    "Inputs for the provider of a general-purpose AI model, by the headings of the AI Office's "
    "template for the public summary of training content (Regulation (EU) 2024/1689, Article "
    "53(1)(d)). This is not that summary, and nobody has checked whether one is due. null: only "
    "the provider knows."
)
TOP_SHARE = 0.1  # of domains, by documents; for small providers the template asks for less
MASKED = ("emails", "phones", "cards", "keys", "ibans", "national_ids", "ips")


def make_inputs(record: Record) -> dict[str, Any]:
    """The inputs, in the order of the template."""
    listed = {source.name: _describe(record, source) for source in record.sources()}
    by_kind = {source.name: source.kind for source in record.sources()}

    def of(*kinds: str) -> dict[str, Any]:
        return {name: each for name, each in listed.items() if by_kind[name] in kinds}

    return {
        "what this is": WHAT,
        "1 General information": _general(record),
        "2 List of data sources": {
            "2.1 Publicly available datasets": {
                "to confirm": "that each can be had by anybody",
                "sources": of("hub", "urls"),
            },
            "2.2 Private datasets of third parties": None,
            "2.3 Data crawled and scraped from online sources": {
                "crawler": f"{AGENT}: docs/data.md says how it behaves",
                "sources": of("web"),
            },
            "2.4 User data": None,
            "2.5 Synthetic data": None,
            "2.6 Other sources": None,
            "to be placed by the provider under 2.2, 2.4, 2.5 or 2.6": of("files"),
        },
        "3 Data processing": _processing(record),
    }


def _general(record: Record) -> dict[str, Any]:
    model = record.json("models/base/manifest.json")["model"]
    counts = record.json("metrics/data.json")
    seen = record.json("metrics/train.json")
    tokens = counts["train"]["tokens"]
    return {
        "1.1 Provider": None,
        "1.2 Model": {
            "name": record.param("train", "name"),
            "version (DVC's hash of the adapter)": record.outs["models/adapter"],
            "depends on": {key: model[key] for key in ("name", "source", "revision", "license")},
            "placed on the market": None,
        },
        "1.3 Modality and size": {
            "modality": "text",
            "tokens of the training split": tokens,
            "tokens read in training": seen["tokens"],
            "range of the template": _range(tokens),
            "documents": {split: counts[split]["documents"] for split in ("train", "validation")},
            "latest date of acquisition": None,
            "languages": None,
        },
    }


def _describe(record: Record, source: Source) -> dict[str, Any]:
    """A source as it was fetched and used."""
    manifest = record.json(f"data/raw/{source.name}/manifest.json")
    own = record.licenses().get(source.name, {})
    found = {
        "place": source.place,
        "licence": source.license,
        "evidence": source.evidence,
        "rows fetched": manifest["counts"].get("rows", manifest["counts"].get("kept")),
        "documents by split and licence": own,
        "share of training": record.json("metrics/data.json")["shares"][source.name]["achieved"],
    }
    if source.kind == "web":
        found |= describe_crawl(record, source, manifest)
    return found


def describe_crawl(record: Record, source: Source, manifest: dict[str, Any]) -> dict[str, Any]:
    """When it was, which addresses were left alone and why, and the domains with most pages."""
    hosts = Counter(urlsplit(page["origin"]).hostname for page in manifest["documents"])
    most = -(-len(hosts) * TOP_SHARE // 1)
    refused = {k: v for k, v in manifest["counts"].items() if k != "kept"}
    return {
        "period": _period(record.root / "data/raw" / source.name / CAPTURE),
        "contact in the user agent": source.parameters["contact"],
        "domains": len(hosts),
        f"domains with most pages ({TOP_SHARE:.0%})": dict(hosts.most_common(int(most))),
        "addresses left alone, by reason": refused,
    }


def _period(capture: Path) -> list[str] | None:
    """The first and the last time of a page in a capture."""
    from warcio.archiveiterator import ArchiveIterator

    with capture.open("rb") as file:
        times = [record.rec_headers.get_header("WARC-Date") for record in ArchiveIterator(file)]
    return [min(times), max(times)] if times else None


def _processing(record: Record) -> dict[str, Any]:
    settings = record.stages["preprocess"]["params"]["params.yaml"]["preprocess"]
    data = record.json("metrics/data.json")
    return {
        "3.1 Reservations of rights": {
            "code of practice signed": None,
            "of crawls": "robots.txt, tdmrep.json, ai.txt, Content-Signal, Content-Usage, noai and "
            "a page's own licence are honoured (docs/data.md); what was left alone is in 2.3",
            "of other sources": "licence and evidence are recorded for each, in 2",
        },
        "3.2 Removal of illegal content": None,
        "3.3 Other": {
            "personal data and secrets": {key: settings[key] for key in MASKED},
            "masked, by source": data["mended"],
            "left out, by source and reason": data["dropped"],
        },
    }


def _range(tokens: int) -> str:
    """The template's range of a text's size."""
    if tokens < 1e9:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= 1e13 else "more than 10 trillion tokens"
