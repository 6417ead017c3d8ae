"""Questions with what was due and what was said, to be searched and filtered."""

import re
from difflib import SequenceMatcher

from stages.evaluate.predictions import Prediction
from stages.evaluate.report import said
from stages.report.contents import Contents
from stages.report.elements import Html, card, element, escape

_WORDS = re.compile(r"[^\W_]+")
MOST = 200  # questions on the page; data/predictions has all
_PIECE = re.compile(r"\s+|[^\W_]+|.", re.DOTALL)
OUTCOMES = ("better", "worse", "same")


def samples(run: Contents) -> Html:
    """The first questions, whose order is that of a hash: none was chosen."""
    asked = [pair for pair in run.pairs if pair[1].question]
    if not asked:
        return Html()
    shown = [_sample(*pair) for pair in asked[:MOST]]
    note = (
        f"{len(shown)} of {len(asked)} questions, drawn by a hash, not chosen. Marked: what an "
        "answer shares with the reference. … marks an answer cut for its length."
    )
    options = [element("option", text, value=text) for text in ("all", *OUTCOMES)]
    controls = element(
        "div",
        Html('<input id="words" type="search" placeholder="Filter by words" aria-label="Words">'),
        element("select", *options, id="outcome", aria_label="Tuned against base"),
        element("span", id="shown", class_="note"),
        class_="controls",
    )
    more = element("button", f"Show all {len(shown)}", id="more", type="button")
    return card("Questions and answers", controls, element("div", *shown), more, note=note)


def _sample(base: Prediction, tuned: Prediction) -> Html:
    outcome, by = _outcome(base, tuned)
    lines = [
        ("due", tuned.reference),
        ("base", mark(said(base), base.reference)),
        ("tuned", mark(said(tuned), tuned.reference)),
    ]
    answers = [element("dt", name) + element("dd", text, class_=name) for name, text in lines]
    about = " · ".join(each for each in (tuned.source, tuned.label, by) if each)
    return element(
        "article",
        element("p", tuned.question, class_="question"),
        element("dl", *answers),
        element("p", element("span", outcome, class_=f"chip {outcome}"), " ", about, class_="note"),
        data_outcome=outcome,
    )


def _outcome(base: Prediction, tuned: Prediction) -> tuple[str, str]:
    """Whether tuned answered better than base, and by which score."""
    for name in ("accuracy", "rougeL", "token_f1", *tuned.scores):
        if name in tuned.scores and name in base.scores:
            before, after = base.scores[name], tuned.scores[name]
            word = "same" if after == before else "better" if after > before else "worse"
            return word, f"{name} {before:.2f} → {after:.2f}"
    word = "better" if tuned.loss < base.loss else "worse" if tuned.loss > base.loss else "same"
    return word, f"loss {base.loss / base.tokens:.2f} → {tuned.loss / tuned.tokens:.2f}"


def mark(answer: str, reference: str) -> Html:
    """The answer; marked what the reference has in the same order, but for small words alone."""
    pieces, due = _PIECE.findall(answer), _PIECE.findall(reference)
    folded = [[piece.casefold() for piece in each] for each in (pieces, due)]
    written, at = [], 0
    for block in SequenceMatcher(None, *folded, autojunk=False).get_matching_blocks():
        written += ["".join(pieces[at : block.a])]
        shared = "".join(pieces[block.a : block.a + block.size])
        telling = any(len(word) > 3 for word in _WORDS.findall(shared))
        core = shared.strip()
        before, after = shared.split(core) if core and telling else (shared, "")
        written += [before, element("mark", core) if telling else "", after]
        at = block.a + block.size
    return Html("".join(escape(each) for each in written))
