"""What became of the data: numbers for `dvc metrics`, tables for plots, and every reject."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.params import Params
from finetune.records import SPLITS
from stages.preprocess.examples import Examples
from stages.preprocess.gallery import write_page
from stages.preprocess.leaks import leak_places
from stages.preprocess.mixture import Share
from stages.preprocess.shards import Shards, count_by_source, open_shard, read_shard, total
from stages.preprocess.splits import TRAIN
from stages.preprocess.tokenise import read_examples
from stages.preprocess.verdicts import LEAK_FILE, REASONS, Verdicts, way_out

ORIGINS = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "split", "origin", "license")]
)
BINS = 24  # of the histogram of lengths


@dataclass(frozen=True)
class Reject:
    """A document that is in no split, and why; `of` is the origin of the one that it resembles,
    `text` the beginning of the first few of a kind."""

    source: str
    origin: str
    reason: str
    step: str
    of: str = ""
    text: str = ""


def write_report(
    folder: Path,
    params: Params,
    base: Path,
    shards: Shards,
    verdicts: Verdicts,
    examples: Examples,
    chosen: Mapping[str, np.ndarray],
    shares: Mapping[str, Share],
) -> dict[str, dict[str, int]]:
    """Write the report's folder; return how many documents were left out by source and reason."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = np.concatenate(list(chosen.values()))
    dropped = write_rejects(partial / "rejects.jsonl", shards, verdicts, examples, rows)
    write_origins(partial / "documents.parquet", shards, examples, chosen)
    write_steps(partial / "steps.tsv", shards)
    write_tables(partial, examples, chosen, shares)
    write_page(partial / "examples.html", params, base, examples, chosen)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return dropped


def explain_empty(params: Params, shards: Shards, verdicts: Verdicts, examples: Examples) -> None:
    """Raise ValueError where a source of the mixture has no training example, and say why."""
    names, found = params.data.names(), examples.source[examples.split == TRAIN]
    for number in np.setdiff1d(np.arange(len(names)), found):
        name = names[number]
        if not params.mixture[name]:
            continue
        everything = np.arange(len(examples))
        each = _rejects(shards, verdicts, examples, everything)
        reasons = Counter(reject.reason for reject in each if reject.source == name)
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        first = max(reasons, key=reasons.__getitem__, default="")
        without = f", or set mixture.{name}: 0" if len(names) > 1 else ""
        raise ValueError(
            f"mixture.{name} is {params.mixture[name]}, but no training document of {name} is left "
            f"({told or 'it has no row'}): {way_out(first, name)}{without}"
        )


def write_rejects(
    path: Path, shards: Shards, verdicts: Verdicts, examples: Examples, chosen: np.ndarray
) -> dict[str, dict[str, int]]:
    """Write every reject as a line of JSON; return how many there are by source and reason."""
    counts: dict[str, Counter[str]] = {}
    with path.open("w", encoding="utf-8") as file:
        for reject in _rejects(shards, verdicts, examples, chosen):
            counts.setdefault(reject.source, Counter())[reject.reason] += 1
            line = {name: value for name, value in vars(reject).items() if value}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return {source: dict(counter) for source, counter in counts.items()}


def write_origins(
    path: Path, shards: Shards, examples: Examples, chosen: Mapping[str, np.ndarray]
) -> None:
    """Write where each document of each split came from, and under which licence, as Parquet."""
    splits = np.full(shards.starts[-1], -1, dtype=np.int8)
    for number, split in enumerate(SPLITS):
        splits[examples.document[chosen[split]]] = number
    with pq.ParquetWriter(path, ORIGINS, compression="zstd") as writer:
        for part, source, start in shards.each():
            batch = open_shard(part)
            rows = np.flatnonzero(splits[start : start + len(batch)] >= 0)
            if len(rows):
                writer.write_table(_origins(batch.take(rows), source, splits[start + rows]))


def summarise(
    shards: Shards,
    examples: Examples,
    chosen: Mapping[str, np.ndarray],
    shares: Mapping[str, Share],
    dropped: Mapping[str, Mapping[str, int]],
    leak: float,
) -> dict:
    """The numbers of metrics/data.json."""
    counts = count_by_source(shards)
    rows = np.concatenate(list(chosen.values()))
    mended = {
        source: total([what for each in found for what in each.mended.values()])
        for source, found in counts.items()
    }
    return {
        "read": sum(each.rows for found in counts.values() for each in found),
        "dropped": {source: dict(reasons) for source, reasons in dropped.items()},
        "mended": {source: dict(found) for source, found in mended.items() if found},
        "leak": round(leak, 6),
        "cut": round(float(examples.cut[rows].mean()), 6) if len(rows) else 0.0,
        "shares": {name: _share(share) for name, share in shares.items()},
        **{split: _lengths(examples, chosen[split]) for split in SPLITS},
    }


def refused_by_source(shards: Shards, examples: Examples) -> dict[str, list[tuple[str, str]]]:
    """Reason and origin of each document that could not be tokenised, by source."""
    found: dict[str, list[tuple[str, str]]] = {}
    for (_, source, _), made in zip(shards.each(), examples.paths, strict=True):
        for document, reason in read_examples(made)[1]:
            found.setdefault(source, []).append((reason, shards.origin(document)))
    return found


def write_steps(path: Path, shards: Shards) -> None:
    """steps.tsv: what came to each step of each source, and what it dropped and mended."""
    lines = ["source\tstep\tdocuments\tdropped\tmended"]
    for source, counts in count_by_source(shards).items():
        seen = total([each.seen for each in counts])
        for step in dict.fromkeys(name for each in counts for name in each.seen):
            why = Counter(r for each in counts for name, r, *_ in each.rejected if name == step)
            mended = total([each.mended.get(step, {}) for each in counts])
            told = [_told(each) for each in (why, mended)]
            lines.append("	".join((source, step, str(seen[step]), *told)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tables(
    folder: Path, examples: Examples, chosen: Mapping[str, np.ndarray], shares: Mapping[str, Share]
) -> None:
    """lengths.tsv, a histogram of tokens by split; sources.tsv, target and achieved shares."""
    longest = max(int(examples.tokens[rows].max(initial=1)) for rows in chosen.values())
    width = -(-longest // BINS)
    lines = ["tokens\trows\tsplit"]
    for split, rows in chosen.items():
        bins = np.bincount((examples.tokens[rows] - 1) // width, minlength=BINS)
        lines += [f"{(n + 1) * width}\t{count}\t{split}" for n, count in enumerate(bins)]
    (folder / "lengths.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = ["source\tshare\tkind"]
    for name, share in shares.items():
        lines += [f"{name}\t{share.target:.6f}\ttarget", f"{name}\t{share.achieved:.6f}\tachieved"]
    (folder / "sources.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _rejects(
    shards: Shards, verdicts: Verdicts, examples: Examples, chosen: np.ndarray
) -> Iterator[Reject]:
    """Shard by shard: rejected on the way, as a duplicate, when tokenised, by the mixture."""
    used, texts = np.unique(examples.document[chosen]), leak_places(examples.paths[0].parent)
    for (path, source, start), made in zip(shards.each(), examples.paths, strict=True):
        shard, counts = read_shard(path)
        origins = shard["origin"]
        for step, reason, origin, text in counts.rejected:
            yield Reject(source, origin, reason, step, text=text)
        bounds = [start, start + len(shard)]
        low, high = np.searchsorted(verdicts.left_out["document"], bounds)
        for document, other, reason in verdicts.left_out[low:high].tolist():
            of = texts[other] if reason == LEAK_FILE else shards.origin(other)
            origin = origins[document - start].as_py()
            yield Reject(source, origin, REASONS[reason], "duplicates", of)
        batch, refused = read_examples(made)
        for number, why in refused:
            yield Reject(source, origins[number - start].as_py(), why, "tokenise")
        unused = np.setdiff1d(batch["document"].to_numpy(), used)
        for number in unused.tolist():
            yield Reject(source, origins[number - start].as_py(), "mixture", "mixture")


def _origins(batch: pa.RecordBatch, source: str, splits: np.ndarray) -> pa.Table:
    columns = [
        pa.array([f"{id:016x}" for id in batch["id"].to_pylist()]),
        pa.array([source] * len(batch)),
        pa.array([SPLITS[split] for split in splits]),
        batch["origin"],
        batch["license"],
    ]
    return pa.Table.from_arrays(columns, schema=ORIGINS)


def _share(share: Share) -> dict[str, float]:
    return {
        "target": round(share.target, 6),
        "achieved": round(share.achieved, 6),
        "available": round(share.available, 2),
        "used": round(share.used, 2),
        "uses": round(share.uses, 4),
    }


def _lengths(examples: Examples, rows: np.ndarray) -> dict[str, int | float]:
    tokens = examples.tokens[rows]
    if not len(rows):
        return {"rows": 0, "documents": 0, "tokens": 0, "supervised": 0}
    return {
        "rows": len(rows),
        "documents": len(np.unique(examples.document[rows])),
        "tokens": int(tokens.sum(dtype=np.int64)),
        "supervised": int(examples.supervised[rows].sum(dtype=np.int64)),
        "median": float(np.median(tokens)),
        "p95": int(np.percentile(tokens, 95, method="higher")),
        "max": int(tokens.max()),
    }
