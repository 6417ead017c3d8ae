"""How one answer is scored against its reference, and what a trivial answer is. Nothing heavy.

Words everywhere are those of finetune.text.words with signs: `>50K` is not `<=50K`, nor A+ A-.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import median_low

from finetune.text.words import words

Score = Callable[[str, str, str], float]  # of question, reference and answer
# Of labels: each is the answer of two rows in the mean, and short.
_ROWS_PER_LABEL, _WORDS_OF_LABEL = 2, 12
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_QUOTED = re.compile(r"[\"'“„‘`](.+)[\"'”“’`]")
_THOUGHT_BEFORE = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)


def without_thinking(text: str) -> str:
    """The answer without what the model thought aloud: neither scored nor compared.

    Thinking that was cut off leaves no answer. A template may open it in the prompt: then all
    before its end is thinking.
    """
    return _THOUGHT_BEFORE.sub("", _THINKING.sub("", text)).strip()


def exact_match(question: str, reference: str, answer: str) -> float:
    """1 where the two are the same but for case and blanks, else 0."""
    return float(_plain(reference) == _plain(answer))


def token_f1(question: str, reference: str, answer: str) -> float:
    """F1 of the words in common, each as often as both have it (Rajpurkar et al. 2016).

    Two texts without any word are equal.
    """
    there, found = words(reference, signs=True), words(answer, signs=True)
    if not there or not found:
        return float(there == found)
    common = (Counter(there) & Counter(found)).total()
    return 2 * common / (len(there) + len(found))


def chrf(question: str, reference: str, answer: str) -> float:
    """chrF of character 1- to 6-grams (Popović 2015) by the package sacrebleu, 0 to 1."""
    return _chrf_scorer().sentence_score(answer, [reference]).score / 100


def rouge1(question: str, reference: str, answer: str) -> float:
    """ROUGE-1 F1 (Lin 2004) by the package rouge-score; without a word in common 0."""
    return _rouge(reference, answer)["rouge1"].fmeasure


def rougeL(question: str, reference: str, answer: str) -> float:  # noqa: N802 (its name)
    """ROUGE-L F1: the longest common subsequence of words."""
    return _rouge(reference, answer)["rougeL"].fmeasure


def accuracy(question: str, reference: str, answer: str) -> float:
    """1 where the answer is the reference's label, else 0."""
    return float(label(reference) == label(answer))


def label(text: str) -> str:
    """A label as it is compared: without case, quotes or blanks around, and a last full stop."""
    plain = _plain(text)
    if quoted := _QUOTED.fullmatch(plain):
        plain = quoted[1].strip()
    return plain[:-1] if len(plain) > 1 and plain.endswith(".") else plain


SCORES: dict[str, dict[str, Score]] = {
    "exact_match": {"exact_match": exact_match},
    "token_f1": {"token_f1": token_f1},
    "accuracy": {"accuracy": accuracy},
    "chrf": {"chrf": chrf},
    "rouge": {"rouge1": rouge1, "rougeL": rougeL},
}


def are_labels(references: Sequence[str]) -> bool:
    """Whether answers repeat: short ones, each of two rows or more in the mean."""
    distinct = {label(reference) for reference in references}
    if not references or max(len(words(each, signs=True)) for each in distinct) > _WORDS_OF_LABEL:
        return False
    return 1 < len(distinct) <= len(references) / _ROWS_PER_LABEL


def trivial_answers(questions: Sequence[str], references: Sequence[str]) -> list[str]:
    """What anybody could answer without reading.

    Where answers are labels: the most frequent of them. Else the first N words of each question,
    N being the references' (lower) median of words. Both are taken from the very references that
    are scored, which flatters the trivial answer a little: the right direction. A model that
    scores no better has not read the question.
    """
    if are_labels(references):
        counted = Counter(label(reference) for reference in references)
        most = max(sorted(counted), key=counted.__getitem__)
        return [next(r for r in references if label(r) == most)] * len(questions)
    count = median_low(len(reference.split()) for reference in references)
    return [" ".join(question.split()[:count]) for question in questions]


def score_all(
    scores: Mapping[str, Score],
    questions: Sequence[str],
    references: Sequence[str],
    answers: Sequence[str],
) -> list[dict[str, float]]:
    """The scores of each answer by name, rounded so that files stay small."""
    triples = zip(questions, references, answers, strict=True)
    return [{name: round(score(*each), 4) for name, score in scores.items()} for each in triples]


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


@cache
def _chrf_scorer():  # noqa: ANN202 (the package is imported where it is used)
    from sacrebleu.metrics import CHRF

    return CHRF()


def _rouge(reference: str, answer: str) -> dict:
    return _rouge_scorer().score(reference, answer)


@cache
def _rouge_scorer():  # noqa: ANN202
    from rouge_score import rouge_scorer, tokenizers

    class Words(tokenizers.Tokenizer):
        """Words in any script, and the signs that change what is meant.

        On ASCII text without such signs these are rouge-score's own tokens; its default drops
        every other letter, so that an answer in Greek would score 0, and takes C++ for C#. No
        stemmer: Porter's is for English, and a title is short enough for its exact words to matter.
        """

        def tokenize(self, text: str) -> list[str]:
            return words(text, signs=True)

    return rouge_scorer.RougeScorer(["rouge1", "rougeL"], tokenizer=Words())
