"""The words of a text in any script: what splitting, near-duplicates and scores compare.

Words are runs of letters, digits and the marks on them (Unicode category M: vowel signs, points,
accents), in NFC and case-folded. Scripts that write no blanks between words give one letter with
its marks at a time. A text without any word gives its characters, so that "+" is not "-".
"""

import re
import unicodedata

import regex

_SPACELESS = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Javanese}\p{Balinese}\u30fc\uff70"
)
_WORD = (
    rf"[\p{{L}}\p{{N}}--[{_SPACELESS}]][\p{{L}}\p{{N}}\p{{M}}--[{_SPACELESS}--\p{{M}}]]*"
    rf"|[[{_SPACELESS}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
)
_W = r"[\p{L}\p{N}]"
# Signs that make another meaning: C++ and C#, >50K and <=50K, A+ and A-, -1 and 1, 6/2, $5 and 5%.
# Not the marks at the start of a line of Markdown, emphasis, hyphens and dashes of prose, rules.
_SIGN = (
    r"|[\p{Sm}\p{Sc}#%\u2030\u00b0--[|~]]+"
    rf"|(?<!{_W})[-.](?=\.?\p{{N}})|(?<={_W})-(?![-\p{{L}}\p{{N}}])"
    r"|(?<=\p{N} )-(?= \p{N})|(?<=\p{N})/(?=\p{N})|(?<=\p{N} )/(?= \p{N})"
    rf"|(?<={_W})(?:\*\*?|\^)(?={_W})|(?<={_W} )(?:\*\*?|\^)(?= {_W})"
    rf"|!(?==)|(?<!{_W})!(?={_W})|&&|\|\|"
    r"|(?=[\p{So}\p{Extended_Pictographic}\p{Regional_Indicator}])\X"
)
_ANY_WORD = regex.compile(_WORD, regex.V1)
_WORD_OR_SIGN = regex.compile(_WORD + _SIGN, regex.V1)
_CHARACTER = regex.compile(r"(?=\S)\X")
# The faster module, where it finds the same: without marks, joiners and spaceless scripts.
_ASCII_WORD = re.compile("[a-z0-9]+")
_ASCII_WORD_BYTES = re.compile(b"[a-z0-9]+")
_WESTERN = re.compile(
    "[\0-\xac\xae-\u02ff\u0370-\u0482\u048a-\u0530\u1e00-\u1fff\u2010-\u205e\u20a0-\u20bf]*"
)
_WESTERN_WORD = re.compile(r"[^\W_]+")
_NO_SIGN = re.compile(r"[\w\s,:;?'\"()\[\]]*")  # wherever it stands
_LINE_MARK = re.compile(r"(?m)^[ \t]*(?:#{1,6}|[-+*>])(?=[ \t]+[^\s\d])")
# Invisible within a word, and the choice between a sign's text and emoji form.
_JOINERS = regex.compile(
    r"[\u200b\u200c\u00ad\ufe0e\ufe0f]|(?<=[\p{L}\p{M}--[\ufe0e\ufe0f]])\u200d", regex.V1
)


def words(text: str, *, signs: bool = False) -> list[str]:
    """The words of a text, top to bottom; its characters but blanks where it has no word.

    With `signs`, as scores need it, signs that change what is meant count as words of their own:
    those of arithmetic, comparison, currency, share and number, and symbols and emoji. On ASCII
    text without such signs these are the tokens of the package rouge-score.
    """
    text = _folded(text)
    if signs and not (text.isascii() and _NO_SIGN.fullmatch(text)):
        found = _WORD_OR_SIGN.findall(_LINE_MARK.sub("", text))
    elif text.isascii():
        found = _ASCII_WORD.findall(text)
    else:
        found = (_WESTERN_WORD if _WESTERN.fullmatch(text) else _ANY_WORD).findall(text)
    return found or _CHARACTER.findall(text)


def utf8_words(text: str) -> list[bytes]:
    """`words` in UTF-8, as they are hashed: without a decoded copy of each where it is ASCII."""
    if text.isascii() and (found := _ASCII_WORD_BYTES.findall(text.lower().encode())):
        return found
    return [word.encode() for word in words(text)]


def _folded(text: str) -> str:
    """Case-folded, in NFC, without what is invisible in words; one minus sign."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFC", text.casefold()).replace("\u2212", "-")
    return text if _WESTERN.fullmatch(text) else _JOINERS.sub("", text)
