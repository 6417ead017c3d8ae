"""A comparison as a page, of the same make as reports/report.html."""

from collections.abc import Sequence
from pathlib import Path

from stages.evaluate.report import said
from stages.report.elements import Html, card, element, page, table
from stages.report.samples import mark
from tools.compare.pairing import Pair
from tools.compare.text import cells, ranking_cells, sentence


def write_html(path: Path, pairs: Sequence[Pair], questions: int) -> None:
    """Write the page. Atomic."""
    names = [pairs[0].first, *(pair.second for pair in pairs)]
    sections = [("Ranking", [_ranking(pairs)])] if len(pairs) > 1 else []
    sections += [(f"{pair.second} against {pair.first}", _parts(pair, questions)) for pair in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    text = page(" and ".join(names), _lead(pairs), sections)
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.rename(path)


def _lead(pairs: Sequence[Pair]) -> Html:
    word = pairs[0].verdict if len(pairs) == 1 else "Ranking"
    lines = [element("p", sentence(pair), class_="lead") for pair in pairs]
    heading = element("h1", word[0].upper() + word[1:], class_=f"verdict {word.split()[0]}")
    return element("div", heading, *lines)


def _ranking(pairs: Sequence[Pair]) -> Html:
    head, *rows = ranking_cells(pairs)
    return card(f"By {pairs[0].metric}", table(head, rows, "tnnnnn"))


def _parts(pair: Pair, questions: int) -> list[Html]:
    head, *rows = cells(pair)
    note = f"{pair.rows} test rows in {pair.groups} groups. {' '.join(pair.notes)}".strip()
    shown = [_question(pair, *both) for both in pair.differing[:questions]]
    found = [card("Metrics", table(head, rows, "tnnnnnnnn"), note=note)]
    return found + ([card("Where they differ most", *shown)] if shown else [])


def _question(pair: Pair, one, two) -> Html:  # noqa: ANN001
    lines = [
        (pair.first, mark(said(one), one.reference)),
        (pair.second, mark(said(two), two.reference)),
    ]
    answers = [
        element("dt", name) + element("dd", text) for name, text in [("due", one.reference), *lines]
    ]
    return element(
        "article", element("p", one.question, class_="question"), element("dl", *map(Html, answers))
    )
