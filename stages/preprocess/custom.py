"""Steps that params.yaml names: functions of the user's own, and filters as datatrove has them.

A function of one argument is a step. It gives the argument back, changed or not, or raises
`Rejected`. One whose argument is called `row` comes before the templates and gets the columns; any
other comes after normalising and gets the `Document`. An object, or a class, with
`filter(document)` as datatrove's filters have it, is a step too: it gets a document of datatrove
and says whether to keep it, or (whether, the reason). Options that params.yaml gives behind a name
are keyword arguments: of the class, or of the function beside its one argument.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stages.preprocess.turns import Rejected, Turn

# Where a step may live, so that the stage depends on its file; or in an installed package.
FOLDERS = ("steps", "stages/preprocess")

Named = tuple[str, Callable[[Any], Any]]


def load_steps(
    steps: Sequence[tuple[str, Mapping[str, Any]]], source: str
) -> tuple[list[Named], list[Named]]:
    """The steps of these dotted names and options: those on rows, and those on documents, in order.

    Raises ValueError for a name that leads to no step, or to a file that is no dependency, and for
    options that it does not take.
    """
    on_rows, on_documents = [], []
    for dotted, options in steps:
        key = f"documents.{source}.steps names {dotted!r}"
        found = _make(_find(dotted, key), options, key)
        name = dotted.rpartition(".")[2]
        if hasattr(found, "filter"):
            on_documents.append((name, _of_filter(found, dotted)))
        elif _argument(found) == "row":
            on_rows.append((name, _of_function(found, dotted, on_row=True)))
        elif callable(found):
            on_documents.append((name, _of_function(found, dotted, on_row=False)))
        else:
            raise ValueError(f"{key}, which is no function and has no filter(document)")
    return on_rows, on_documents


def _find(dotted: str, key: str) -> Any:
    module, _, name = dotted.rpartition(".")
    try:
        home = importlib.import_module(module)
    except ValueError:
        raise ValueError(f"{key}: write the module's name too, as in steps.mine.{name}") from None
    except ImportError as error:
        raise ValueError(f"{key}: {error}; write it into the folder steps/") from None
    _check_home(home, key)
    try:
        return getattr(home, name)
    except AttributeError:
        raise ValueError(f"{key}, but {module} has no {name}") from None


def _make(found: Any, options: Mapping[str, Any], key: str) -> Any:
    """The step itself: a class, or a function that makes one, called; a function with its options.

    Both are tried here, before any row is read.
    """
    told = f"options {dict(options)}" if options else "no options"
    try:
        if inspect.isclass(found) or (inspect.isfunction(found) and not _required(found)):
            return found(**options)
        if inspect.isfunction(found):
            inspect.signature(found).bind(None, **options)
            return partial(found, **options) if options else found
    except Exception as error:
        raise ValueError(f"{key} with {told}, which it does not take: {error}") from None
    if options:
        raise ValueError(f"{key} with {told}, but it is neither a class nor a function")
    return found


def _check_home(module: Any, key: str) -> None:
    """A file of this repository must be in a folder that is a dependency of the stage."""
    path, here = Path(getattr(module, "__file__", None) or ".").resolve(), Path.cwd().resolve()
    inside = path.is_relative_to(here) and "site-packages" not in path.parts
    if inside and not any(path.is_relative_to(here / folder) for folder in FOLDERS):
        raise ValueError(
            f"{key}, in {path.relative_to(here)}, which preprocess does not depend on: move it "
            "into steps/, so that editing it runs the stage again"
        )


def _of_function(function: Callable[[Any], Any], dotted: str, on_row: bool) -> Callable:
    """The function with its answer checked: forgetting `return` must not lose the data."""
    kind = "row" if on_row else "document"

    def step(document: Any) -> Any:
        given = document.row if on_row else document
        try:
            made = function(given)
        except Rejected:
            raise
        except Exception as error:
            raise _failed(dotted, document, error) from error
        if not isinstance(made, type(given)):
            raise ValueError(
                f"{dotted} gave {type(made).__name__} for {document.origin}: give the {kind} back, "
                "or raise Rejected with the reason"
            )
        if on_row:
            document.row, made = made, document
        else:
            made.turns = [turn if isinstance(turn, Turn) else Turn(*turn) for turn in made.turns]
        return made

    return step


def _of_filter(found: Any, dotted: str) -> Callable[[Any], Any]:
    """A filter of datatrove as a step. It sees all turns as one text; what it changes in the text
    of a document of one turn stays changed, and is counted."""
    from datatrove.data import Document

    reason_of_its_own = re.sub(r"\W+", "_", dotted.rpartition(".")[2]).strip("_").lower()

    def step(document: Any) -> Any:
        text = "\n".join(text for _, text in document.turns)
        metadata = {**document.row, "source": document.source}
        seen = Document(text=text, id=document.origin, metadata=metadata)
        try:
            answer = found.filter(seen)
        except Exception as error:
            raise _failed(dotted, document, error) from error
        keep, reason = answer if isinstance(answer, tuple) else (answer, None)
        if not keep:
            raise Rejected(re.sub(r"\W+", "_", reason) if reason else reason_of_its_own)
        if seen.text != text and len(document.turns) == 1:
            turn = document.turns[0]
            document.turns = [Turn(turn[0], seen.text, turn.more)]
            document.mended["text_changed"] += 1
        return document

    return step


def _failed(dotted: str, document: Any, error: Exception) -> ValueError:
    """What a step failed on, in one line."""
    told = " ".join(str(error).split())
    return ValueError(f"{dotted} failed on {document.origin}: {type(error).__name__}: {told}")


def _required(function: Callable) -> list[str]:
    """The names of the arguments that a function must be given."""
    found = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in found if each.kind in kinds and each.default is each.empty]


def _argument(function: Any) -> str:
    names = _required(function) if callable(function) else []
    return names[0] if names else ""
