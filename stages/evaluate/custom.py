"""Which scores `evaluate.metrics` names: ours, and functions of the user's own by dotted name."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from stages.evaluate.scores import SCORES, Score, are_labels

# Where a function may live, so that the stage depends on its file; or in an installed package.
FOLDERS = ("steps", "stages/evaluate")


def choose_scores(names: Sequence[str], references: Sequence[str]) -> dict[str, Score]:
    """The scores by name, in the order given; accuracy too where the references are labels.

    `loss` is always there and no score of an answer. Raises ValueError for a name that leads to
    no function, or to a file that is no dependency of the stage.
    """
    wanted = [name for name in names if name != "loss"]
    if "accuracy" not in wanted and are_labels(references):
        wanted.insert(0, "accuracy")
    found: dict[str, Score] = {}
    for name in wanted:
        found |= SCORES[name] if name in SCORES else {name.rpartition(".")[2]: _find(name)}
    return found


def _find(dotted: str) -> Score:
    """A function(question, reference, answer) that gives a number, higher being better."""
    module, _, name = dotted.rpartition(".")
    key = f"evaluate.metrics names {dotted!r}"
    if not module:
        known = ", ".join(["loss", *SCORES])
        raise ValueError(
            f"{key}: known are {known}; a function of your own needs its module's name"
        )
    try:
        home = importlib.import_module(module)
        function = getattr(home, name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}: {error}; write it into the folder steps/") from None
    _check_home(Path(getattr(home, "__file__", None) or "."), key)
    return _checked(function, dotted)


def _check_home(file: Path, key: str) -> None:
    """A file of this repository must be in a folder that is a dependency of the stage."""
    path, here = file.resolve(), Path.cwd().resolve()
    inside = path.is_relative_to(here) and "site-packages" not in path.parts
    if inside and not any(path.is_relative_to(here / folder) for folder in FOLDERS):
        raise ValueError(
            f"{key}, in {path.relative_to(here)}, which evaluate does not depend on: move it into "
            "steps/, so that editing it scores again"
        )


def _checked(function: Score, dotted: str) -> Score:
    """The function, whose failures and answers that are no number name the question."""

    def score(question: str, reference: str, answer: str) -> float:
        try:
            value = float(function(question, reference, answer))
        except Exception as error:
            raise ValueError(
                f"{dotted} failed on {question[:60]!r}: {type(error).__name__}: {error}"
            ) from error
        if value != value or abs(value) == float("inf"):
            raise ValueError(f"{dotted} gave {value} for {question[:60]!r}: a finite number is due")
        return value

    return score
