"""The way of a row: its order, steps of the user's own, and what each drops and mends."""

import shutil
import sys
from pathlib import Path

import pytest

from finetune.params import load
from stages.preprocess.plan import fingerprint, read_source
from stages.preprocess.steps import way
from tests.preparing import declare, run_stage, write_source

MINE = """
from stages.preprocess.turns import Rejected, Turn


def lower_titles(row):
    return {**row, "title": row["title"].lower()}


def no_drafts(document):
    if "draft" in document.row["body"]:
        raise Rejected("draft")
    document.turns[0] = Turn("user", document.turns[0][1].replace("colour", "color"))
    document.mended["spelling"] += 1
    return document


def forgets(document):
    pass


def breaks(document):
    return document.row["absent"]


class Short:
    def filter(self, doc):
        doc.text = doc.text.rstrip("!")
        return len(doc.text) < 60 or (False, "too wordy")


def makes_short():
    return Short()


def no_address():
    from datatrove.pipeline.filters import RegexFilter

    return RegexFilter("www")


def no_more_than(document, most, word="aye"):
    if document.row["body"].count(word) > most:
        raise Rejected("too_often")
    return document


def keeps_columns(row, names):
    return {name: row[name] for name in names}


class Fails:
    def filter(self, doc):
        return doc.text[9_999]


short = Short()
NUMBER = 3
"""


@pytest.fixture
def prepare(tmp_path, monkeypatch, tiny_base, write_params):
    """A function that runs the stage on rows with these steps of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name == "steps" or name.startswith("steps.")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps/__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "steps/mine.py").write_text(MINE, encoding="utf-8")
    shutil.copy(Path(__file__).parents[1] / "steps/language.py", tmp_path / "steps")

    def run(rows, document=None, mode="completion", workers=1, **changes):
        write_source(tmp_path, "law", rows)
        entry = {"prompt": "{body}", "answer": "{title}"} if mode == "completion" else {}
        write_params(
            tmp_path,
            data=declare(["law"]),
            documents={"law": {**entry, **(document or {})}},
            mixture={"law": 1.0},
            preprocess__mode=mode,
            preprocess__min_characters=1,
            **{f"preprocess__{key}": value for key, value in changes.items()},
        )
        return run_stage(tiny_base, workers)

    yield run
    for name in [name for name in sys.modules if name == "steps" or name.startswith("steps.")]:
        sys.modules.pop(name)


def rows(count=40):
    return [
        {"body": f"What colour is number {n * 37}?", "title": f"Title {n}"} for n in range(count)
    ]


def test_steps_of_the_users_own_change_count_and_drop(prepare):
    more = [{"body": f"A draft of {n}, which nobody reads", "title": "Draft"} for n in range(10)]
    steps = {"steps": ["steps.mine.lower_titles", "steps.mine.no_drafts"]}
    one = prepare(rows() + more, steps)
    assert one.metrics["dropped"]["law"] == {"draft": 10}
    assert one.metrics["mended"]["law"] == {"spelling": 40}
    texts = "".join(one.texts("train"))
    assert "What color" in texts and "colour" not in texts and "title" in texts
    table = (Path("reports/data/steps.tsv")).read_text(encoding="utf-8").splitlines()
    assert "law\tno_drafts\t50\tdraft 10\tspelling 40" in table
    assert [line.split("\t")[1] for line in table[1:]] == [
        *("license", "page", "identity", "lower_titles", "template", "likeness", "normalise"),
        *("no_drafts", "length", "personal"),
    ]
    files = one.bytes()
    assert prepare(rows() + more, steps, workers=2).bytes() == files


@pytest.mark.parametrize("name", ["short", "Short", "makes_short"])
def test_a_filter_as_datatrove_has_them_is_a_step(prepare, name):
    texts = [
        {"text": f"number {n} is short" + " and goes on" * (n % 5) * 2 + "!"} for n in range(50)
    ]
    entry = {"text": "{text}", "steps": [f"steps.mine.{name}"]}
    prepared = prepare(texts, entry, mode="causal")
    assert prepared.metrics["dropped"]["law"] == {"too_wordy": 30}
    assert not any("!" in text for text in prepared.texts("train"))


def test_a_filter_of_datatrove_itself_is_a_step(prepare):
    texts = [
        {"text": f"www.example.org/{n} " * 3 if n % 2 else f"A fine row, {n}"} for n in range(40)
    ]
    prepared = prepare(texts, {"text": "{text}", "steps": ["steps.mine.no_address"]}, mode="causal")
    assert prepared.metrics["dropped"]["law"] == {"no_address": 20}


def test_options_of_params_are_those_of_the_step(prepare):
    some = [{**row, "body": row["body"] + " aye" * n, "more": n} for n, row in enumerate(rows())]
    steps = [
        {"steps.mine.keeps_columns": {"names": ["body", "title"]}},
        {"steps.mine.no_more_than": {"most": 9}},
    ]
    one = prepare(some, {"steps": steps})
    assert one.metrics["dropped"]["law"] == {"too_often": 30}
    files = one.bytes()
    assert prepare(some, {"steps": steps}, workers=2).bytes() == files
    steps[1]["steps.mine.no_more_than"] |= {"word": "color"}
    assert prepare(some, {"steps": steps}).metrics["dropped"] == {}


def test_what_datatroves_filter_takes_is_an_option_too(prepare):
    texts = [{"text": f"www.example.org/{n}" if n % 2 else f"A fine row, {n}"} for n in range(40)]
    steps = [{"datatrove.pipeline.filters.RegexFilter": {"regex_exp": "www"}}]
    prepared = prepare(texts, {"text": "{text}", "steps": steps}, mode="causal")
    assert prepared.metrics["dropped"]["law"] == {"regexfilter": 20}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("steps.mine.no_more_than", "with no options, which it does not take: missing a required"),
        ({"steps.mine.no_more_than": {"most": 1, "wrd": "x"}}, "unexpected keyword argument 'wrd'"),
        ({"steps.mine.Short": {"most": 1}}, "with options {'most': 1}, which it does not take"),
        ({"steps.mine.short": {"most": 1}}, "but it is neither a class nor a function"),
        ({"steps.mine.Fails": {}}, "steps.mine.Fails failed on law:0: IndexError: string index"),
        ({"steps.mine.Short": {}, "steps.mine.short": {}}, "at most 1 item"),
        ("steps.language.LanguageFilter", "missing 1 required positional argument: 'languages'"),
        ({"steps.language.LanguageFilter": {"languages": ["english"]}}, "languages is ['english']"),
        ({"steps.language.LanguageFilter": {"languages": "en"}}, "give a list of codes, of ace, "),
    ],
)
def test_options_that_a_step_does_not_take_are_named_in_one_line(prepare, step, message):
    with pytest.raises(ValueError, match=r"documents.law.steps|failed on") as error:
        prepare(rows(), {"steps": [step]})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("steps.mine.absent", "steps.mine has no absent"),
        ("steps.absent.it", "No module named 'steps.absent'"),
        ("it", "write the module's name too"),
        ("steps.mine.NUMBER", "is no function"),
        ("steps.mine.forgets", "gave NoneType for law:0: give the document back"),
        ("steps.mine.breaks", "failed on law:0: KeyError: 'absent'"),
    ],
)
def test_what_is_no_step_is_named_in_one_line(prepare, name, message):
    with pytest.raises(ValueError, match=r"steps\.|it") as error:
        prepare(rows(), {"steps": [name]})
    assert message in str(error.value)


def test_a_step_must_live_where_the_stage_depends_on_it(prepare, tmp_path):
    (tmp_path / "elsewhere.py").write_text(MINE, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"elsewhere.py, which preprocess does not depend on.*steps/"
    ):
        prepare(rows(), {"steps": ["elsewhere.no_drafts"]})


def test_an_edited_step_never_continues_the_work_of_the_old_one(prepare, tmp_path, tiny_base):
    prepare(rows(), {"steps": ["steps.mine.no_drafts"]})
    before = fingerprint(load(), tiny_base, tmp_path / "data/raw")
    (tmp_path / "steps/mine.py").write_text(MINE + "\n# edited\n", encoding="utf-8")
    assert fingerprint(load(), tiny_base, tmp_path / "data/raw") != before


def test_too_many_unusable_rows_stop_the_stage_with_reasons_and_examples(prepare):
    bad = [{"body": "", "title": f"Title {n}"} for n in range(6)]
    bad += [{"body": f"Mail jo@example.org {n} times", "title": ""} for n in range(3)]
    with pytest.raises(ValueError) as error:
        prepare(rows(40) + bad, max_rejected_share=0.1)
    message = str(error.value)
    assert (
        "9 of 49 rows of law (18.4%)" in message and "preprocess.max_rejected_share 0.1" in message
    )
    assert "empty_prompt 6 (law:40" in message and "empty_answer 3 (law:46" in message
    assert message.count("law:4") == 6 and "Mail [email] 0 times" in message
    assert prepare(rows(40) + bad, max_rejected_share=0.2).metrics["read"] == 49


def test_what_was_asked_to_be_left_out_counts_for_no_limit(prepare):
    more = [{"body": f"A draft, {n}", "title": "Draft"} for n in range(20)]
    more += [{"body": f"Write to me{n}@example.org", "title": "Mail"} for n in range(20)]
    prepared = prepare(
        rows() + more, {"steps": ["steps.mine.no_drafts"]}, emails="drop", max_rejected_share=0.0
    )
    assert prepared.metrics["dropped"]["law"] == {"draft": 20, "has_email": 20}


def test_a_column_that_only_a_late_row_has_is_a_column(prepare):
    some = [{"body": f"What is number {n * 37}?"} for n in range(1_500)]
    late = [{"body": f"Late question {n}?", "title": f"Title {n}"} for n in range(30)]
    prepared = prepare(some + late, max_rejected_share=1.0)
    assert prepared.metrics["dropped"]["law"] == {"empty_answer": 1_500}
    with pytest.raises(
        ValueError, match="names column 'titel', which law lacks; it has: body, title"
    ):
        prepare(some + late, {"answer": "{titel}"})


def test_a_rows_own_licence_goes_before_that_of_its_source(prepare):
    import pyarrow.parquet as pq

    own = [{**row, "license": "CC-BY-4.0"} for row in rows(20)]
    own += [{**row, "metadata": {"Licence": "MIT"}} for row in rows(60)[20:40]]
    prepare(own + rows(60)[40:])
    table = pq.read_table("reports/data/documents.parquet").to_pylist()
    found = {row["origin"]: row["license"] for row in table}
    assert (
        found["law:3"] == "CC-BY-4.0" and found["law:25"] == "MIT" and found["law:45"] == "CC0-1.0"
    )


def test_the_order_of_the_way_is_the_list(prepare, tmp_path):
    prepare(rows())
    names = [step.name for step in way(read_source(load(), "law", tmp_path / "data/raw"))]
    assert names == [
        *("license", "page", "identity", "template", "likeness", "normalise"),
        *("length", "personal"),
    ]
