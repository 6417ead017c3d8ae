"""What a person looks at: samples as a table, and the numbers behind the charts."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune.records import write_json
from stages.evaluate.metrics import confusion, part_differences, rounded, split
from stages.evaluate.predictions import Prediction

SAMPLES = 20
QUESTION_CHARACTERS = 240
# Metric -> its name in charts. A user's own score stands under its own name.
CHARTED = {
    "loss": "loss",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge1": "ROUGE-1",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
}


def write_report(
    folder: Path,
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    scores: dict[str, dict],
    *,
    samples: int,
    seed: int,
) -> None:
    """Write the numbers behind the charts, and samples as JSON (dashboard) and Markdown (to read).

    `scores` are the metrics of `base` and `tuned`. The samples are the first rows, whose order is
    that of a hash: none was chosen.
    """
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "compare.json", comparison(scores))
    write_json(folder / "parts.json", by_part(base, tuned, samples=samples, seed=seed))
    write_json(folder / "confusion.json", confusion(tuned))
    pairs = [pair for pair in zip(base, tuned, strict=True) if pair[1].question][:SAMPLES]
    write_json(folder / "samples.json", [_sample(*pair) for pair in pairs])
    (folder / "samples.md").write_text(_table(pairs), encoding="utf-8", newline="\n")


def comparison(scores: dict[str, dict]) -> list[dict]:
    """One entry a metric and model, in the order in which they are charted."""
    models = {**scores, "trivial answer": scores["tuned"].get("trivial", {})}
    shown = charted(scores["tuned"]["interval"])
    shown += ["stop_rate"] if "stop_rate" in scores["tuned"] else []
    return [
        {"metric": CHARTED.get(name, name.replace("_", " ")), "model": model, "value": found[name]}
        for name in shown
        for model, found in models.items()
        if name in found
    ]


def charted(measured: Iterable[str]) -> list[str]:
    """The metrics that were measured in the order of charts and tables; the user's own last."""
    measured = list(measured)
    own = [name for name in measured if name not in CHARTED]
    return [name for name in CHARTED if name in measured] + own


def by_part(
    base: Sequence[Prediction], tuned: Sequence[Prediction], *, samples: int, seed: int
) -> list[dict]:
    """tuned - base of each source and label, with its interval, for the chart of parts."""
    found = []
    for by in ("source", "label"):
        parts = split(tuned, by)
        for name, rows in parts.items() if len(parts) > 1 else ():
            changes = part_differences(base, tuned, rows, samples=samples, seed=seed)
            for metric, each in changes.items():
                entry = {"by": by, "part": name, "rows": len(rows)}
                entry |= {"metric": CHARTED.get(metric, metric)}
                numbers = {"difference": each.value, "low": each.low, "high": each.high}
                found.append(entry | {name: rounded(v) for name, v in numbers.items()})
    return found


def _sample(base: Prediction, tuned: Prediction) -> dict[str, str]:
    texts = {
        "question": _shorten(tuned.question),
        "reference": tuned.reference,
        "base": said(base),
        "tuned": said(tuned),
    }
    # DVC writes these into a script of its page, which the text </script> would end.
    return {name: text.replace("<", "<\u200b") for name, text in texts.items()}


def _shorten(question: str) -> str:
    return textwrap.shorten(question, QUESTION_CHARACTERS, placeholder=" …")


def said(prediction: Prediction) -> str:
    """The answer; one that was cut for its length ends with …"""
    return prediction.answer if prediction.ended else f"{prediction.answer} …"


def _table(pairs: Sequence[tuple[Prediction, Prediction]]) -> str:
    """Question, reference, base and tuned as a Markdown table."""
    score = _shown_score(pairs)
    lines = [
        f"# {len(pairs)} questions and their answers",
        "",
        "Drawn by a hash of the question, not chosen. An answer that ends with … was cut for its "
        f"length. {f'{CHARTED.get(score, score)} in parentheses.' if score else ''}".rstrip(),
        "",
        "| question | reference | base | tuned |",
        "|---|---|---|---|",
    ]
    for base, tuned in pairs:
        answers = [_scored(each, score) for each in (base, tuned)]
        cells = [_shorten(tuned.question), f"**{tuned.reference}**", *answers]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _shown_score(pairs: Sequence[tuple[Prediction, Prediction]]) -> str:
    """The score that stands behind an answer: the smoothest that there is."""
    there = pairs[0][1].scores if pairs else {}
    return next((name for name in ["rougeL", "token_f1", *there] if name in there), "")


def _scored(prediction: Prediction, score: str) -> str:
    return f"{said(prediction)} ({prediction.scores[score]:.2f})" if score else said(prediction)


def _cell(text: str) -> str:
    """One line, with what Markdown would read as a table or HTML made plain."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;")
