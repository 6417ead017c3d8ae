"""Language identification and quality filters of web text, as steps that params.yaml names."""

from pathlib import Path

import pytest
from datatrove.data import Document

from steps import quality
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


def said(text):
    return Document(text=text, id="it")


@pytest.mark.parametrize("code", LANGUAGES)
def test_sentences_of_a_language_are_kept_for_it_alone(code):
    only = LanguageFilter([code])
    kept = [each for each, text in TEXTS if only.filter(said(text)) is True]
    assert kept == [each for each, _ in TEXTS if each == code]


def test_what_is_dropped_names_its_language_or_that_it_is_unsure():
    english = LanguageFilter(["en"])
    reasons = {code: english.filter(said(text))[1] for code, text in TEXTS if code != "en"}
    assert reasons == {code: f"language_{code}" for code in LANGUAGES if code != "en"}
    assert english.filter(said("0.5 12 | 33,1 12 kJ 9 9 -- 17 %"))[1] == "language_unsure"
    assert english.filter(said("Sugar, wheat flour"))[1] == "language_unsure"
    assert LanguageFilter(["en"], threshold=0.3).filter(said("Sugar, wheat flour")) is True


def test_short_texts_are_seldom_taken_for_another_language():
    """Of the first 40 characters, as of a title; what is unsure is dropped, not guessed."""
    every = LanguageFilter(LANGUAGES)
    short = [(code, said(text[:40])) for code, text in TEXTS]
    sure = [(code, each) for code, each in short if every.filter(each) is True]
    assert len(sure) >= 0.75 * len(TEXTS)
    assert all(LanguageFilter([code]).filter(each) is True for code, each in sure)


ARTICLE = sorted((ROOT / "data/sample/food/articles").glob("*.md"))[0].read_text(encoding="utf-8")
CHINESE = "".join(text for code, text in TEXTS if code == "zh") * 3


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (quality.GopherQualityFilter, "12 % of 3.5 g and 4 to 7. The 8 with 9.\n" * 9, "below_avg"),
        (quality.GopherQualityFilter, "Salt is a mineral that is mined.", "short_doc"),
        (quality.GopherRepetitionFilter, f"{ARTICLE}\n\n{ARTICLE}", "dup_para_frac"),
        (quality.FineWebQualityFilter, "Home\nNews\nImprint and contact\n" * 9, "line_punct"),
        (quality.C4QualityFilter, "One sentence. And another.\nMenu", "too_few_sentences"),
    ],
)
def test_quality_filters_keep_an_article_and_name_what_is_none(kind, text, reason):
    assert kind().filter(said(ARTICLE)) is True
    kept, why = kind().filter(said(text))
    assert not kept and reason in why


def test_quality_filters_count_words_in_any_script():
    options = {"min_doc_words": 40, "min_avg_word_length": 1, "min_stop_words": 0}
    chinese = said(CHINESE)
    assert quality.GopherQualityFilter(**options).filter(chinese) is True
    options |= {"min_stop_words": 2, "stop_words": ["在", "和"]}
    assert quality.GopherQualityFilter(**options).filter(chinese) is True


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
        {"steps.quality.GopherQualityFilter": {"min_doc_words": 40}},
        "steps.quality.GopherRepetitionFilter",
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
