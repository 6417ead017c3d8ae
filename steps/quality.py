"""datatrove's quality filters of web text, as steps of preprocessing that count our words.

datatrove splits words by spaCy and others, a package for each group of languages, with punctuation
as words. Here they are those of finetune/text/words.py: in any script, and without punctuation, as
the papers count them. Options are those of datatrove's classes; what is left out is as published.
"""

from typing import Any

from datatrove.pipeline import filters
from datatrove.utils.word_tokenizers import WhitespaceTokenizer

from finetune.text.words import words


class _Words(WhitespaceTokenizer):
    """Our words; sentences end at a full stop of any script, or with the line."""

    def word_tokenize(self, text: str) -> list[str]:
        return words(text)


_WORDS = _Words()  # one, since datatrove remembers what it split by text and tokenizer


class GopherQualityFilter(filters.GopherQualityFilter):
    """Words, their length, symbols, bullets, stop words (arXiv:2112.11446, section A.1.1).

    The stop words are English: give others, or `min_stop_words: 0`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(language=_WORDS, **options)


class GopherRepetitionFilter(filters.GopherRepetitionFilter):
    """Repeated lines, paragraphs and runs of words (arXiv:2112.11446, table A1)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(language=_WORDS, **options)


class FineWebQualityFilter(filters.FineWebQualityFilter):
    """Lines without a full stop, short lines, lists (arXiv:2406.17557, section 3.6)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(language=_WORDS, **options)


class C4QualityFilter(filters.C4QualityFilter):
    """Drops lines that do not end a sentence, then documents of few (arXiv:1910.10683, 2.2)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(language=_WORDS, **options)
