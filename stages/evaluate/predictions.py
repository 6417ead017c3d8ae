"""A prediction per row, and the file that keeps them. Nothing heavy."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.evaluate.questions import Question


@dataclass(frozen=True)
class Prediction:
    """How one row came out.

    `loss` is in nats, summed over the row's `tokens` supervised tokens; `answer` is without what
    the model thought aloud, which is in `thinking`; `length` is what it wrote, in tokens without
    the end token; `ended` says that it wrote that end token itself. `scores` are those of the
    answer by name, `trivial` those of the trivial answer. `prompt` is a hash of the prompt's
    tokens; rows of one `group` are not independent; `label` tells results apart.
    """

    id: str
    source: str
    question: str
    reference: str
    answer: str
    loss: float
    tokens: int
    length: int
    ended: bool
    document: str = ""
    group: str = ""
    label: str = ""
    prompt: str = ""
    thinking: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    trivial: dict[str, float] = field(default_factory=dict)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one JSON object a line. Atomic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    lines = [json.dumps(asdict(each), ensure_ascii=False) for each in predictions]
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    partial.rename(path)


def parse_predictions(text: str, origin: str) -> list[Prediction]:
    """The predictions of a file's text. Raises ValueError where it is of an older form."""
    names = {each.name for each in fields(Prediction)}
    try:
        lines = [json.loads(line) for line in text.split("\n") if line]
        return [Prediction(**{k: v for k, v in line.items() if k in names}) for line in lines]
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{origin} holds no predictions of this form: {error}") from None


def read_predictions(path: Path, questions: "Sequence[Question]") -> list[Prediction]:
    """The predictions for exactly these questions.

    Raises ValueError if they were made for others: scores of different rows do not compare.
    """
    kept = parse_predictions(path.read_text(encoding="utf-8"), str(path))
    wanted = [(q.row.id, q.question, q.reference, len(q.row.supervised())) for q in questions]
    there = [(each.id, each.question, each.reference, each.tokens) for each in kept]
    if there != wanted:
        raise ValueError(
            f"{path} has {len(there)} rows, of which {len(set(there) & set(wanted))} are among the "
            f"{len(wanted)} scored now: base and tuned need the same; run `dvc repro baseline`"
        )
    return kept
