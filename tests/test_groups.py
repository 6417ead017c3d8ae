"""What belongs together is in one split; which row it is decides, and nothing else."""

import json
import random
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stages.evaluate.questions import read_questions
from tests.chat_templates import make_tokenizer
from tests.conftest import WORDS
from tests.preparing import declare, run_stage, write_source
from tests.test_turns import CALL

TEMPLATES = {
    "completion": {"prompt": "{body}", "answer": "{title}"},
    "causal": {"text": "{text}"},
    "chat": {"messages": "{messages}"},
}


@pytest.fixture
def prepare(tmp_path, monkeypatch, tiny_base, write_params):
    """A function that runs the stage and tells which rows (by number) are in which split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def run(rows, document=None, mode="completion", own=(), base=tiny_base, **changes):
        write_source(tmp_path, "law", rows)
        limits = {"min_characters": 1, "max_length": 384, "max_truncated_share": 1.0}
        write_params(
            tmp_path,
            data=declare(["law"], own),
            documents={"law": {**TEMPLATES[mode], **(document or {})}},
            mixture={"law": 1.0},
            preprocess__mode=mode,
            **{f"preprocess__{key}": value for key, value in {**limits, **changes}.items()},
        )
        return run_stage(base)

    return run


def places(prepared):
    """Origin -> split, of every row that is in one."""
    import pyarrow.parquet as pq

    table = pq.read_table(prepared.folder / "reports/data/documents.parquet").to_pylist()
    return {int(row["origin"].split(":")[1]): row["split"] for row in table}


def said(seed, count):
    return " ".join(random.Random(f"{seed}").choices(WORDS, k=count))


def questions(count):
    return [
        {"body": f"{said(n, 12)} {n}? Write to me{n}@example.org", "title": said(-n, 3)}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("document", "changes"),
    [
        ({"prompt": "Question: {body}"}, {}),
        ({"instruction": "Say it in a few words."}, {}),
        ({"normalise": "none"}, {}),
        ({}, {"emails": "keep"}),
        ({"answer": "The title is {title}"}, {"max_length": 300}),
    ],
)
def test_another_prompt_or_mask_moves_no_row_to_another_split(prepare, document, changes):
    rows = questions(120)
    before = prepare(rows)
    after = prepare(rows, document, **changes)
    assert places(before) == places(after)
    assert before.ids("test") == after.ids("test")


def test_rows_that_only_a_mask_makes_equal_move_none(prepare):
    rows = [{"body": f"May I write to me{n}@example.org?", "title": "Yes"} for n in range(60)]
    rows += questions(40)
    kept, masked = (prepare(rows, emails=e, near_duplicates=False) for e in ("keep", "mask"))
    found = places(masked)
    assert masked.metrics["dropped"]["law"] == {"duplicate": 59} and len(found) == 41
    assert found.items() <= places(kept).items()


def test_the_order_of_the_rows_decides_nothing(prepare):
    rows = questions(60)
    rows += [{**row, "body": f"{row['body']} please"} for row in rows[:30]]
    texts = {split: sorted(prepare(rows).texts(split)) for split in ("train", "test")}
    random.Random(1).shuffle(rows)
    again = prepare(rows)
    assert {split: sorted(again.texts(split)) for split in ("train", "test")} == texts


def test_columns_of_identity_keep_a_row_where_it_is_when_it_is_edited(prepare):
    rows = [{**row, "key": n} for n, row in enumerate(questions(80))]
    before = places(prepare(rows, {"identity": ["key"]}))
    edited = [{**row, "body": row["body"].upper() + " Thanks."} for row in rows]
    assert places(prepare(edited, {"identity": ["key"]})) == before
    with pytest.raises(ValueError, match="column 'kee'"):
        prepare(rows, {"identity": ["kee"]})


def test_a_group_is_never_in_two_splits(prepare):
    rows = [{**row, "author": f"author {n % 25}"} for n, row in enumerate(questions(150))]
    shares = {"test_share": 0.3, "validation_share": 0.3}
    prepared = prepare(rows, {"group": "{author}", "label": "{title}"}, **shares)
    found = places(prepared)
    assert len(found) == 150 and set(found.values()) == {"train", "validation", "test"}
    assert all(found[n] == found[n % 25] for n in found)
    texts = [
        json.loads(line)
        for line in Path("data/prepared/test/texts.jsonl").read_text("utf-8").splitlines()
    ]
    groups = {text["group"] for text in texts}
    assert len(groups) == len({n % 25 for n in found if found[n] == "test"}) > 1
    assert all(text["label"] == text["reference"] and text["source"] == "law" for text in texts)
    assert len({text["document"] for text in texts}) == len(texts)


@pytest.mark.parametrize("document", [{}, {"group": "{context}"}])
def test_sixty_contexts_with_five_questions_each_lose_no_row(prepare, document):
    rows = [
        {"context": said(n, 60), "q": f"And {said(m, 3)}?", "title": said((n, m), 3)}
        for n in range(60)
        for m in range(5)
    ]
    prepared = prepare(rows, {"prompt": "{context}\n\nQuestion: {q}", **document})
    found = places(prepared)
    assert len(found) == 300 and prepared.metrics["leak"] == 0
    assert all(found[n] == found[n // 5 * 5] for n in found)


def test_conversations_expanded_by_prefix_are_in_one_split_each(prepare):
    rows = []
    for n in range(40):
        turns = []
        for m in range(4):
            turns.append({"role": "user", "content": f"{n * 7} {said((n, m), 5)}?"})
            turns.append({"role": "assistant", "content": said((m, n), 4)})
            rows.append({"messages": list(turns), "number": n})
    prepared = prepare(rows, mode="chat")
    found = places(prepared)
    splits = {n: {found[m] for m in range(4 * n, 4 * n + 4) if m in found} for n in range(40)}
    assert all(len(each) == 1 for each in splits.values()) and prepared.metrics["leak"] == 0
    assert len(found) >= 150 and len(set().union(*splits.values())) == 3


def test_a_common_opening_joins_no_conversations(prepare):
    opening = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    rows = [
        {
            "messages": [
                *opening,
                {"role": "user", "content": said(n, 12)},
                {"role": "assistant", "content": said(-n, 9)},
            ]
        }
        for n in range(80)
    ]
    assert set(places(prepare(rows, mode="chat")).values()) == {"train", "validation", "test"}


SIGNS = [("12 + {}", "12 - {}"), ("Is C++ {} good", "Is C# {} good"), ("दिन {} क्या", "दान {} क्या")]


@pytest.mark.parametrize(("one", "other"), SIGNS)
def test_questions_that_differ_in_a_sign_are_different(prepare, one, other):
    rows = [("train", {"body": f"{one.format(n)}?", "title": said(n, 2)}) for n in range(40)]
    rows += [("test", {"body": f"{other.format(n)}?", "title": said(-n, 2)}) for n in range(10)]
    rows += [("validation", {"body": f"Why {n}?", "title": "So"}) for n in range(5)]
    prepared = prepare(rows, own=("train", "validation", "test"))
    assert prepared.metrics["leak"] == 0 and len(prepared.rows("train")) == 40
    same = [("train", {"body": f"  {other.format(3).upper()}?", "title": "Another"})]
    leaking = prepare(rows + same, own=("train", "validation", "test"))
    assert leaking.reasons() == [("law:55", "leak")]


def test_what_the_tool_split_itself_cannot_leak(prepare):
    """A long instruction in every row, which made all rows near-duplicates and stopped the run."""
    rules = said("rules", 90)
    rows = [{"body": f"{rules}\n{said(n, 14)}", "title": said(-n, 6)} for n in range(80)]
    prepared = prepare(rows, max_leak_share=0.0)
    found = places(prepared)
    assert len(found) == 80 and set(found.values()) == {"train", "validation", "test"}


def test_a_group_that_a_source_itself_puts_into_two_splits_leaks(prepare):
    rows = [("train", {**row, "author": n % 10}) for n, row in enumerate(questions(40))]
    rows += [("test", {**row, "author": 3}) for row in questions(50)[40:45]]
    rows += [("validation", {**row, "author": 77}) for row in questions(50)[45:]]
    own = ("train", "validation", "test")
    with pytest.raises(ValueError, match=r"4 of 40 .*near_duplicates: false"):
        prepare(rows, {"group": "{author}"}, own=own)
    prepared = prepare(rows, {"group": "{author}"}, own=own, max_leak_share=0.2)
    assert prepared.metrics["dropped"]["law"] == {"group_leak": 4}


def test_benchmark_questions_inside_of_longer_documents_are_found(prepare, tmp_path, caplog):
    asked = [f"{said(('exam', n), 9)} {n}?" for n in range(50)]
    lines = [json.dumps({"question": each, "choices": ["yes", "no"]}) for each in asked]
    (tmp_path / "exam.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = [{"text": f"{said(n, 90)} {asked[n]} {said(-n, 90)}"} for n in range(50)]
    texts += [{"text": f"{said(('other', n), 180)} yes no"} for n in range(50)]
    changes = {"validation_share": 0.0, "test_share": 0.0, "max_length": 256}
    with caplog.at_level("WARNING"):
        prepared = prepare(texts, mode="causal", leak_files=["exam.jsonl"], **changes)
    assert prepared.metrics["dropped"]["law"] == {"leak_file": 50}
    assert sorted(places(prepared)) == list(range(50, 100))
    assert prepared.rejects[7]["of"].startswith("exam.jsonl:")
    [told] = [each for each in caplog.messages if "documents of law" in each]
    assert told.startswith("50 of 100 documents of law hold a text of preprocess.leak_files")
    assert "take the texts out of preprocess.leak_files" in told
    with pytest.raises(ValueError, match=r"leak_file 50\): if these are no copies .*leak_files$"):
        prepare(texts[:50], mode="causal", leak_files=["exam.jsonl"], **changes)


def test_documents_that_a_long_part_makes_alike_are_told_with_the_way_out(prepare, caplog):
    """Too few for the part to be found to be common, so all but one go."""
    rules = said("rules", 200)
    rows = [{"body": f"{rules}\n{said(n, 4)}", "title": "The same title"} for n in range(12)]
    with caplog.at_level("WARNING"), pytest.raises(ValueError) as error:
        prepare([("train", row) for row in rows] + [("test", rows[0]), ("validation", rows[1])],
                own=("train", "validation", "test"), max_leak_share=1.0)  # fmt: skip
    message = str(error.value)
    assert "no training document of law is left" in message and "near_leak" in message
    assert "documents.law.instruction" in message and "near_duplicates: false" in message
    caplog.clear()
    prepare(rows)
    [told] = [each for each in caplog.messages if "documents of law" in each]
    assert "of 12 documents of law resemble another one" in told
    assert "documents.law.instruction" in told


def dialogue(number, words, **more):
    """Two questions with their answers, the second of so many words."""
    return [
        {"role": "user", "content": f"{said(number, 8)} {number}?"},
        {"role": "assistant", "content": said(f"a{number}", 4)},
        {"role": "user", "content": f"and {said(f'b{number}', 4)}?"},
        {"role": "assistant", "content": said(f"c{number}", words), **more},
    ]


def asked_and_written(prepared):
    """Of each test row: its reference, and what its last span says."""
    tokenizer = AutoTokenizer.from_pretrained(prepared.base)
    for each in read_questions(prepared.folder / "data/prepared/test", None):
        start, end = each.row.spans[-2:]
        ids = each.row.input_ids[start:end].tolist()
        yield each.reference, tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize(
    ("words", "more"),
    [(4, {}), (400, {}), (4, {"weight": 0})],
    ids=["all turns", "a last turn that does not fit", "a last turn that is not learnt"],
)
def test_the_reference_is_the_answer_that_is_asked_for(prepare, words, more):
    rows = [{"messages": dialogue(number, words, **more)} for number in range(30)]
    found = list(asked_and_written(prepare(rows, mode="chat")))
    assert found
    assert all(reference == written for reference, written in found)


@pytest.fixture(scope="module")
def base_with_tools(tiny_base, tmp_path_factory):
    """A base whose template writes calls of tools, and takes earlier thinking out."""
    base = tmp_path_factory.mktemp("tools") / "base"
    shutil.copytree(tiny_base, base)
    make_tokenizer("qwen-3").save_pretrained(base)
    return base


def call(number, place):
    asked, calling = CALL[:2]
    function = {"name": "look", "arguments": {"place": place}}
    return [
        {**asked, "content": f"{said(number, 8)} {number}?"},
        {**calling, "tool_calls": [{"type": "function", "function": function}]},
    ]


def test_the_reference_of_a_call_is_the_call(prepare, base_with_tools):
    rows = [{"messages": call(number, said(f"p{number}", 2))} for number in range(30)]
    found = list(asked_and_written(prepare(rows, mode="chat", base=base_with_tools)))
    assert found
    assert all(reference == written for reference, written in found)
    assert all("look" in reference for reference, _ in found)


def test_other_calls_are_no_copies(prepare, base_with_tools):
    rows = [{"messages": call(number // 2, f"place{number}")} for number in range(40)]
    prepared = prepare(rows, mode="chat", base=base_with_tools, near_duplicates=True)
    assert prepared.metrics["dropped"] == {}


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "You are helpful."}]])
def test_a_question_with_two_answers_is_in_one_split_with_a_system_turn_too(prepare, system):
    rows = [
        {"messages": [*system, *dialogue(number, 1)[:1], {"role": "assistant", "content": answer}]}
        for number in range(60)
        for answer in (said(f"x{number}", 4), said(f"y{number}", 4))
    ]
    found = places(prepare(rows, mode="chat", near_duplicates=False))
    assert len(found) == 120
    assert all(found[number] == found[number + 1] for number in range(0, 120, 2))


def test_a_source_that_is_not_used_takes_no_row_from_one_that_is(
    tmp_path, monkeypatch, tiny_base, write_params
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name, rows in (("aux", questions(40)), ("main", questions(60))):
        write_source(tmp_path, name, rows)
    write_params(
        tmp_path,
        data=declare(["aux", "main"]),
        documents=dict.fromkeys(("aux", "main"), TEMPLATES["completion"]),
        mixture={"aux": 0.0, "main": 1.0},
        preprocess__min_characters=1,
    )
    assert run_stage(tiny_base).metrics["dropped"] == {"aux": {"duplicate": 40}}


def test_a_label_is_masked_as_the_answer_is(prepare):
    rows = [
        {"body": f"{said(n, 12)} {n}?", "title": f"to me{n % 3}@example.org"} for n in range(60)
    ]
    prepared = prepare(rows, {"label": "{title}"}, emails="mask")
    texts = (prepared.folder / "data/prepared/test/texts.jsonl").read_text(encoding="utf-8")
    assert texts and "example.org" not in texts
