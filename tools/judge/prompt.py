"""What the judge is asked, and what its reply says."""

import re
from dataclasses import dataclass
from pathlib import Path

from stages.evaluate.scores import without_thinking

NEEDED, ALLOWED = ("question", "first", "second"), ("question", "reference", "first", "second")
_FIELD = re.compile(r"\{(\w+)\}")
_VERDICT = re.compile(r"^\W*verdict\W+(a|b|tie)\W*$", re.IGNORECASE | re.MULTILINE)
_ALONE = re.compile(r"\W*(a|b|tie)\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Template:
    """The prompt's text with {question}, {reference}, {first} and {second}."""

    text: str

    def render(self, **values: str) -> str:
        """Filled in at once: braces within a question or an answer stay as they are."""
        return _FIELD.sub(lambda match: values[match[1]], self.text)


def read_template(path: Path) -> Template:
    """Raises ValueError for a field that is missing or unknown."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"--prompt is {path}, which does not exist") from None
    there = set(_FIELD.findall(text))
    if missing := [name for name in NEEDED if name not in there]:
        raise ValueError(f"{path} lacks {{{missing[0]}}}: the judge would not see it")
    if unknown := sorted(there - set(ALLOWED)):
        raise ValueError(f"{path} has {{{unknown[0]}}}: there is {', '.join(ALLOWED)}")
    return Template(text.strip())


def verdict(reply: str) -> str | None:
    """`a`, `b` or `tie`: the last line that gives a verdict, or the whole reply if it is no more.

    What was thought aloud does not count. None where nothing says a verdict.
    """
    text = without_thinking(reply)
    if found := _VERDICT.findall(text):
        return found[-1].lower()
    match = _ALONE.fullmatch(text)
    return match[1].lower() if match else None
