"""One way to write each text: Unicode NFC, plain line ends and spaces; and limits of its length.

What was broken on the way here is mended, and counted by what it was: `windows_1252` and
`utf8_as_latin1` (read in a wrong encoding), `undefined` (no character of Windows-1252), `line_end`
(vertical tabs, page and paragraph ends) and `invisible` (controls, soft hyphens, byte order marks).
Other mojibake ("Ã©", "â€™") is left alone: it could be meant, and no character of it is impossible.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Literal

from finetune.params import Preprocess
from stages.preprocess.documents import Rejected, Turn
from stages.preprocess.personal import treat

Kind = Literal["text", "code", "none"]

_LATIN_CONTROL = re.compile("[\x80-\x9f]")
_WINDOWS_1252 = {
    at: bytes([at]).decode("cp1252", "ignore") for at in range(0x80, 0xA0)
}  # "" for the five that it does not define
_UTF8_PUNCTUATION = re.compile("\xe2\x80[\x80-\xbf]")  # dashes, quotes, the ellipsis
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_INVISIBLE = re.compile(  # and soft hyphen, zero width space, word joiner, BOM; not the joiners
    "[\x00-\x08\x0e-\x1f\x7f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]"
)
_LINE_ENDS = re.compile("[\x0b\x0c\u2028\u2029]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[^\S\n]\n")
_BLANK_LINES = re.compile("\n{3,}")
_BLANK_START = re.compile("(?:\ufeff|[^\\S\n]*\n)+")


def clean_turns(
    turns: list[Turn],
    settings: Preprocess,
    masked: dict[str, int],
    kind: Kind = "text",
    mended: Counter[str] | None = None,
) -> list[Turn]:
    """Every text normalised, lengths checked, personal data treated as params say.

    Raises Rejected; what is masked is counted in `masked`, what was broken in `mended`.
    """
    cleaned = [turn.map(lambda text: normalise(text, kind, mended)) for turn in turns]
    if not all(
        turn[1].strip() or turn.more.get("tool_calls") or turn[0] == "tool" for turn in cleaned
    ):
        raise Rejected("empty_text")
    characters = sum(len(text) for _, text in cleaned)
    if characters < settings.min_characters:
        raise Rejected("too_short")
    if characters > settings.max_characters:
        raise Rejected("too_long")
    return [turn.map(lambda text: treat(text, settings, masked)) for turn in cleaned]


def normalise(text: str, kind: Kind = "text", mended: Counter[str] | None = None) -> str:
    """A text in the one way that its kind is written. Doing it twice changes nothing.

    `text`: NFC; spaces of any width as one kind; no invisible characters, no blanks at line ends
    or around the text, at most one empty line; indentation stays. `code`: plain line ends, no
    controls, no blank lines around it; everything else stays. `none`: as it is. Counts what it
    mends in `mended`. Raises Rejected for half a surrogate pair, which no file can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rejected("broken_unicode") from None
    if kind == "none":
        return text
    mended = Counter() if mended is None else mended
    text = _decoded(text, mended)
    return _plain_code(text, mended) if kind == "code" else _plain_text(text, mended)


def _decoded(text: str, mended: Counter[str]) -> str:
    """The text without U+0080 to U+009F, which stand where Windows-1252 or UTF-8 was read as
    Latin-1. UTF-8 it was if all of the text is; else only what is certain: its punctuation."""
    while not text.isascii() and _LATIN_CONTROL.search(text):
        try:
            text = text.encode("latin-1").decode()
            mended["utf8_as_latin1"] += 1
        except UnicodeError:
            text = _replace(_UTF8_PUNCTUATION, _utf8, text, "utf8_as_latin1", mended)
            found = Counter(_LATIN_CONTROL.findall(text))
            defined = {each: n for each, n in found.items() if _WINDOWS_1252[ord(each)]}
            _count(mended, "windows_1252", sum(defined.values()))
            _count(mended, "undefined", found.total() - sum(defined.values()))
            return text.translate(_WINDOWS_1252)
    return text


def _utf8(match: re.Match[str]) -> str:
    return match.group().encode("latin-1").decode()


def _plain_text(text: str, mended: Counter[str]) -> str:
    text = _replace(_INVISIBLE, "", text, "invisible", mended)
    if not text.isascii():
        text = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    text = _replace(_LINE_ENDS, "\n", _unix(text), "line_end", mended)
    if _TRAILING.search(text):
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def _plain_code(text: str, mended: Counter[str]) -> str:
    """Form feeds stay, as sources have them between their parts."""
    text = _unix(_replace(_CONTROL, "", text, "invisible", mended)).rstrip()
    blank = _BLANK_START.match(text)
    return text[blank.end() :] if blank else text


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _replace(
    pattern: re.Pattern[str],
    by: str | Callable[[re.Match[str]], str],
    text: str,
    name: str,
    mended: Counter[str],
) -> str:
    text, count = pattern.subn(by, text)
    _count(mended, name, count)
    return text


def _count(mended: Counter[str], name: str, number: int) -> None:
    if number:
        mended[name] += number
