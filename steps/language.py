"""Language identification, as a step of preprocessing: documents in other languages are left out.

By py3langid: 139 languages in a model that its package carries, so nothing is downloaded, and the
same text always has the same answer.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier


class LanguageFilter:
    """Keeps documents in one of `languages`, by their ISO 639 codes, as `en`.

    A document in another language is dropped as `language_de` and its like; one of which the model
    is less sure than `threshold`, such as a table of numbers or a few words, as `language_unsure`.
    The threshold is that of datatrove's filter of this name.
    """

    def __init__(self, languages: Sequence[str], threshold: float = 0.65) -> None:
        known = _identifier().labels
        unknown = [each for each in languages if each not in known]
        if unknown or not languages or isinstance(languages, str):
            raise ValueError(
                f"languages is {languages!r}: give a list of codes, of {', '.join(sorted(known))}"
            )
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is {threshold!r}: give a share from 0 to below 1")
        self.languages = frozenset(languages)
        self.threshold = threshold

    def filter(self, document: Any) -> bool | tuple[bool, str]:
        """Whether to keep a document of datatrove, and if not, why."""
        language, confidence = _identifier().classify(document.text)
        if confidence < self.threshold:
            return False, "language_unsure"
        return language in self.languages or (False, f"language_{language}")


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    """The model, loaded once a process."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
