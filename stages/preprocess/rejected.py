"""Rows that could not be used: above a share of a source they stop the stage, with examples."""

from collections import Counter
from collections.abc import Sequence

from finetune.params import Params
from stages.preprocess.shards import Counts

EXAMPLES = 3
CHOSEN = ("personal",)  # a step that leaves out what params ask it to


def check_rejected(
    params: Params,
    counts: dict[str, list[Counts]],
    refused: dict[str, list[tuple[str, str]]] | None = None,
) -> None:
    """Raise ValueError for the sources of which more rows than preprocess.max_rejected_share are
    unusable, with each reason and three rows of it.

    Counted is what is broken, empty or of a wrong length, and what cannot be tokenised (`refused`,
    reason and origin); not duplicates, the mixture, personal data or steps that params name.
    """
    limit, problems = params.preprocess.max_rejected_share, []
    for source, each in counts.items():
        rows = sum(count.rows for count in each)
        own = {name.rpartition(".")[2] for name, _ in params.documents[source].named_steps()}
        lost = [
            (reason, origin, text)
            for count in each
            for step, reason, origin, text in count.rejected
            if step not in CHOSEN and step not in own
        ]
        lost += [(reason, origin, "") for reason, origin in (refused or {}).get(source, [])]
        if rows and len(lost) / rows > limit:
            problems.append(
                f"{len(lost)} of {rows} rows of {source} ({len(lost) / rows:.1%}) cannot be used, "
                f"more than preprocess.max_rejected_share {limit}: {_told(lost)}"
            )
    if problems:
        raise ValueError(
            "\n".join(problems) + "\nmend the source or its templates in documents, or raise the "
            "limit if these rows are to be left out"
        )


def _told(lost: Sequence[tuple[str, str, str]]) -> str:
    """Each reason, how often, and a few rows."""
    parts = []
    for reason, number in Counter(reason for reason, _, _ in lost).most_common():
        few = [(origin, text) for why, origin, text in lost if why == reason][:EXAMPLES]
        rows = "; ".join(f"{origin} {text!r}" if text else origin for origin, text in few)
        parts.append(f"{reason} {number} ({rows})")
    return ", ".join(parts)
