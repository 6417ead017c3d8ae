"""Language identification and quality filters of web text, as steps that params.yaml names."""

from pathlib import Path

import pytest

from steps.language import LanguageFilter
from tests.preparing import declare, run_stage, write_source

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [
    line.split("\t")
    for line in (ROOT / "tests/languages.tsv").read_text(encoding="utf-8").splitlines()
]
LANGUAGES = sorted({code for code, _ in TEXTS})
ENGLISH = [text for code, text in TEXTS if code == "en"]
GERMAN = [text for code, text in TEXTS if code == "de"]
FILTERS = "datatrove.pipeline.filters"


class Said:
    """What a filter reads of a document."""

    def __init__(self, text):
        self.text = text


@pytest.mark.parametrize("code", LANGUAGES)
def test_sentences_of_a_language_are_kept_for_it_alone(code):
    only = LanguageFilter([code])
    kept = [each for each, text in TEXTS if only.filter(Said(text)) is True]
    assert kept == [each for each, _ in TEXTS if each == code]


def test_what_is_dropped_names_its_language_or_that_it_is_unsure():
    english = LanguageFilter(["en"])
    reasons = {code: english.filter(Said(text))[1] for code, text in TEXTS if code != "en"}
    assert reasons == {code: f"language_{code}" for code in LANGUAGES if code != "en"}
    assert english.filter(Said("0.5 12 | 33,1 12 kJ 9 9 -- 17 %"))[1] == "language_unsure"
    assert english.filter(Said("Sugar, wheat flour"))[1] == "language_unsure"
    assert LanguageFilter(["en"], threshold=0.3).filter(Said("Sugar, wheat flour")) is True


def test_short_texts_are_seldom_taken_for_another_language():
    """Of the first 40 characters, as of a title; what is unsure is dropped, not guessed."""
    every = LanguageFilter(LANGUAGES)
    short = [(code, Said(text[:40])) for code, text in TEXTS]
    sure = [(code, said) for code, said in short if every.filter(said) is True]
    assert len(sure) >= 0.75 * len(TEXTS)
    assert all(LanguageFilter([code]).filter(said) is True for code, said in sure)


def test_the_food_presets_filters_drop_what_is_no_english_prose(
    tmp_path, monkeypatch, tiny_base, write_params
):
    """Each step counts by source and reason; the same rows give the same bytes on two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    articles = sorted((ROOT / "data/sample/food/articles").glob("*.md"))
    rows = [{"text": each.read_text(encoding="utf-8")} for each in articles[:24]]
    rows += [{"text": f"{n}. " + " ".join(GERMAN)} for n in range(3)]
    rows += [
        {"text": "Fresh olive oil with bread is the breakfast of kings.\n" * 40},
        {"text": ENGLISH[1]},
    ]
    write_source(tmp_path, "pages", rows)
    steps = [
        {"steps.language.LanguageFilter": {"languages": ["en"]}},
        {f"{FILTERS}.GopherQualityFilter": {"max_non_alpha_words_ratio": 0.6}},
        f"{FILTERS}.GopherRepetitionFilter",
    ]
    write_params(
        tmp_path,
        data=declare(["pages"]),
        documents={"pages": {"text": "{text}", "steps": steps}},
        mixture={"pages": 1.0},
        preprocess__mode="causal",
        preprocess__near_duplicates=False,
        preprocess__max_rejected_share=0.0,
    )
    prepared = run_stage(tiny_base)
    dropped = prepared.metrics["dropped"]["pages"]
    assert dropped == {"language_de": 3, "dup_line_frac": 1, "gopher_short_doc": 1}
    table = Path("reports/data/steps.tsv").read_text(encoding="utf-8").splitlines()
    assert "pages\tLanguageFilter\t29\tlanguage_de 3\t" in table
    assert "pages\tGopherQualityFilter\t26\tgopher_short_doc 1\t" in table
    files = prepared.bytes()
    assert run_stage(tiny_base, workers=2).bytes() == files
