"""What a person looks at: samples as a table, and the numbers behind the charts."""

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from finetune.records import write_json
from stages.evaluate.metrics import summarize
from stages.evaluate.predictions import Prediction

SAMPLES = 20
QUESTION_CHARACTERS = 240
CHARTED = {"loss": "loss", "rouge1": "ROUGE-1", "rougeL": "ROUGE-L", "stop_rate": "stop rate"}


def write_report(folder: Path, base: Sequence[Prediction], tuned: Sequence[Prediction]) -> None:
    """Write compare.json (for the bars), samples.json (the dashboard) and samples.md (to read).

    The samples are the first rows, whose order is that of a hash: none was chosen.
    """
    shutil.rmtree(folder, ignore_errors=True)
    write_json(folder / "compare.json", comparison(base, tuned))
    pairs = [pair for pair in zip(base, tuned, strict=True) if pair[1].question][:SAMPLES]
    write_json(folder / "samples.json", [_sample(*pair) for pair in pairs])
    (folder / "samples.md").write_text(_table(pairs), encoding="utf-8")


def comparison(base: Sequence[Prediction], tuned: Sequence[Prediction]) -> list[dict]:
    """One entry a metric and model, in the order in which they are charted."""
    models = {"base": summarize(base), "tuned": summarize(tuned)}
    models["first words"] = models["tuned"].get("trivial", {})
    by_name = [
        {"metric": label, "model": model, "value": scores[name]}
        for name, label in CHARTED.items()
        for model, scores in models.items()
        if name in scores
    ]
    by_source = [
        {"metric": f"loss, {source}", "model": model, "value": models[model]["source"][source]}
        for source in models["tuned"].get("source", {})
        for model in ("base", "tuned")
    ]
    return by_name + by_source


def _sample(base: Prediction, tuned: Prediction) -> dict[str, str]:
    texts = {
        "question": _shorten(tuned.question),
        "reference": tuned.reference,
        "base": _said(base),
        "tuned": _said(tuned),
    }
    # DVC writes these into a script of its page, which the text </script> would end.
    return {name: text.replace("<", "<\u200b") for name, text in texts.items()}


def _shorten(question: str) -> str:
    return textwrap.shorten(question, QUESTION_CHARACTERS, placeholder=" …")


def _said(prediction: Prediction) -> str:
    """The answer; one that was cut for its length ends with …"""
    return prediction.answer if prediction.ended else f"{prediction.answer} …"


def _table(pairs: Sequence[tuple[Prediction, Prediction]]) -> str:
    """Question, reference, base and tuned as a Markdown table."""
    lines = [
        f"# {len(pairs)} questions and their answers",
        "",
        "Drawn by a hash of the question, not chosen. An answer that ends with … was cut for its "
        "length. ROUGE-L in parentheses.",
        "",
        "| question | reference | base | tuned |",
        "|---|---|---|---|",
    ]
    for base, tuned in pairs:
        answers = [f"{_said(each)} ({each.rougeL:.2f})" for each in (base, tuned)]
        cells = [_shorten(tuned.question), f"**{tuned.reference}**", *answers]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """One line, with what Markdown would read as a table or HTML made plain."""
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return plain.replace("<", "&lt;")
