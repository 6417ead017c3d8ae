"""One way to write each text: Unicode NFC, plain line ends and spaces; and limits of its length."""

import re
import unicodedata

from finetune.params import Preprocess
from stages.preprocess.documents import Rejected, Turn
from stages.preprocess.personal import treat

_INVISIBLE = re.compile(  # controls but tab and line end, soft hyphen, zero width space, BOM
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]"
)
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[^\S\n]\n")
_BLANK_LINES = re.compile("\n{3,}")


def clean_turns(turns: list[Turn], settings: Preprocess, masked: dict[str, int]) -> list[Turn]:
    """Every text normalised, lengths checked, personal data treated as params say.

    Raises Rejected; what is masked is counted in `masked`.
    """
    cleaned = [turn.map(normalise) for turn in turns]
    if not all(turn[1] or turn.more.get("tool_calls") or turn[0] == "tool" for turn in cleaned):
        raise Rejected("empty_text")
    characters = sum(len(text) for _, text in cleaned)
    if characters < settings.min_characters:
        raise Rejected("too_short")
    if characters > settings.max_characters:
        raise Rejected("too_long")
    return [turn.map(lambda text: treat(text, settings, masked)) for turn in cleaned]


def normalise(text: str) -> str:
    """NFC; spaces of any width as one kind; no invisible characters, no blanks at line ends or
    around the text, at most one empty line. Indentation stays. Doing it twice changes nothing.

    Raises Rejected for half a surrogate pair, which no file can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rejected("broken_unicode") from None
    text = _INVISIBLE.sub("", text)
    if not text.isascii():
        text = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    text = _LINE_ENDS.sub("\n", text)
    if _TRAILING.search(text):
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()
