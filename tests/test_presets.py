"""Every preset reads the rows of its sources, as their publishers write them, into documents."""

import io
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from fsspec.utils import glob_translate

from finetune.params import Files, Hub, Params, Web, load
from finetune.records import read_rows
from stages.fetch import files as fetch_files
from stages.fetch.hub import selector
from stages.fetch.sources import Part, write_source
from stages.fetch.warcs import copy
from stages.preprocess.collect import walk
from stages.preprocess.plan import read_source
from stages.preprocess.shards import Counts
from stages.preprocess.steps import Document, way
from tests.publishers import DATASETS, QUESTIONS, SITES, capture

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ["params.yaml", *(f"presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml"))]
ROWS = 12  # of the repository's sample, which is whole
SOURCES = [
    (preset, name) for preset in sorted(PRESETS) for name in load(ROOT / preset).data.names()
]
Read = Callable[[str, str], tuple[list[Document], dict[str, str]]]


@pytest.fixture
def read(tmp_path, monkeypatch) -> Read:
    """A function that gives the documents of a preset's source, and why others were left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/sample").symlink_to(ROOT / "data/sample")

    def read(preset: str, name: str) -> tuple[list[Document], dict[str, str]]:
        (tmp_path / "params.yaml").write_bytes((ROOT / preset).read_bytes())
        params = load()
        _fetch(params, name, Path("data/raw") / name, monkeypatch)
        source, counts = read_source(params, name, Path("data/raw")), Counts()
        steps = way(source)
        rows = islice(read_rows(source.folder), ROWS)
        begun = [Document(name, row.row, row.split, row.origin, row.license) for row in rows]
        documents = [walk(each, steps, counts) for each in begun]
        return list(filter(None, documents)), {each[2]: each[1] for each in counts.rejected}

    return read


def _fetch(params: Params, name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fetch stage writes for a source, from the publishers' files in place of a network.

    A source without such a file is a KeyError: give it one.
    """
    data = params.data
    if name in data.files:
        monkeypatch.setattr(sys, "argv", ["fetch", name, str(out)])
        fetch_files.main()
    elif name in data.hub:
        _fetch_hub(data.hub[name], name, out)
    elif name in data.web:
        _fetch_web(data.web[name], name, out)
    else:
        raise KeyError(f"{name}: no file of data.urls is here")


def _fetch_hub(source: Hub, name: str, out: Path) -> None:
    path, content = DATASETS[source.name]
    [split] = [s for s, glob in source.files.items() if re.match(glob_translate(glob), path)]
    columns = tuple(dict.fromkeys([*source.columns, *source.filter])) if source.columns else ()
    part = Part("" if split == "all" else split, path, lambda: io.BytesIO(content), {}, columns)
    write_source(out, name, "hub", source, [part], selector(source), source.max_rows)


def _fetch_web(source: Web, name: str, out: Path) -> None:
    """By way of a WARC file, whose pages are judged by their licences as those of a crawl are."""
    [(root, pages)] = [each for each in SITES.items() if source.start_urls[0].startswith(each[0])]
    content = capture(pages, root)
    allowed = " OR ".join(source.allowed_licenses)
    part = Part("", "pages.warc.gz", lambda: io.BytesIO(content))
    copy(out, name, Files("pages", {}, allowed, "the page"), [part], Counter())


@pytest.mark.parametrize(("preset", "name"), SOURCES)
def test_a_preset_makes_documents_of_the_rows_of_its_source(read, preset, name):
    documents, _ = read(preset, name)
    assert documents
    for document in documents:
        said = [text for _, text in document.turns]
        assert all(text.strip() == text and text for text in said)
        assert not re.search(r"[{}]|\(\)", said[0]) or name == "code"
        assert document.license


def said(documents: list[Document]) -> list[str]:
    return [text for document in documents for _, text in document.turns]


def test_law_asks_the_body_and_answers_the_title(read):
    documents, _ = read("presets/law-mistral-7b.yaml", "law")
    assert said(documents) == [q[k] for q in QUESTIONS for k in ("body", "title")]
    assert {document.label for document in documents} == {"contract-law"}
    assert {document.split for document in documents} == {"train"}


FOOD = "presets/food-mistral-24b.yaml"


def test_compositions_take_the_main_language_and_need_a_name_and_ingredients(read):
    documents, _ = read(FOOD, "compositions")
    assert said(documents) == [
        "Flocons d'avoine \"Bio\"\nMoulin Vert\nIngredients: Flocons d'_avoine_ complète 100 %.",
        "Tomato passata\n\nIngredients: Tomatoes, salt.",
    ]


def test_descriptions_leave_out_what_nobody_has_entered(read):
    documents, _ = read(FOOD, "descriptions")
    assert said(documents) == [
        "Flocons d'avoine \"Bio\"\nMoulin Vert\nFlocons d'avoine complète\nOrganic,EU Organic",
        "Tomato passata\n\nSieved tomatoes",
    ]


def test_articles_and_additives_are_english_prose_on_food(read):
    documents, left_out = read(FOOD, "articles")
    assert [text.partition("\n\n")[0] for text in said(documents)] == ["Kimchi"]
    assert sorted(left_out.values()) == ["gopher_short_doc", "language_de"]
    documents, left_out = read(FOOD, "additives")
    assert [text.partition("\n\n")[0] for text in said(documents)] == ["Sorbic acid"]
    assert left_out == {}


def test_code_keeps_its_lines_and_its_own_licence(read):
    documents, _ = read(FOOD, "code")
    assert said(documents) == ["def salt(sodium):\n\n\n    return sodium * 2.5"]
    assert documents[0].license == "mit"


def test_recipes_are_pages_with_a_recipe_in_english(read):
    documents, left_out = read(FOOD, "recipes")
    [text] = said(documents)
    assert "Lentil Soup" in text.splitlines()[0] and "200 g of brown lentils" in text
    assert "1. Soak the lentils overnight" in text and "edit" not in text
    assert documents[0].license == "CC-BY-SA-4.0"
    reasons = {origin.rpartition(":")[2]: why for origin, why in left_out.items()}
    assert reasons["Soupe_aux_lentilles"] == "language_fr"
    assert reasons["Table_of_Contents"] == "language_unsure"
