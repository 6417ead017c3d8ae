"""The preprocess stage whole: every row is in a split or counted, and nothing depends on chance."""

import json
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.preprocess import tokenise
from stages.preprocess.audit import audit
from stages.preprocess.documents import Rejected, build_document, parse_documents, parse_template
from stages.preprocess.pieces import Piece, cut_text
from stages.preprocess.splits import choose_splits, clusters
from tests.conftest import WORDS, question
from tests.preparing import declare, run_stage, write_source

ASKED = {"system": "You write titles.", "instruction": "Write a title for this legal question."}

LENIENT = {"max_rejected_share": 1.0}  # a few rows, and most of them broken


@pytest.fixture
def prepare(tmp_path, monkeypatch, tiny_base, write_params):
    """A function that runs the stage on sources of rows, with some params changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def run(sources, mode="completion", own=(), workers=1, documents=None, mixture=None, **changes):
        for name, rows in sources.items():
            write_source(tmp_path, name, rows)
        columns = {
            "completion": {"prompt": "{body}", "answer": "{title}", **ASKED},
            "causal": {"text": "{text}"},
            "chat": {"messages": "{messages}"},
        }
        write_params(
            tmp_path,
            data=declare(sources, own),
            documents={name: documents or columns[mode] for name in sources},
            mixture=mixture or dict.fromkeys(sources, 1.0),
            preprocess__mode=mode,
            **{f"preprocess__{key}": value for key, value in {**LENIENT, **changes}.items()},
        )
        return run_stage(tiny_base, workers)

    return run


def questions(count, start=0):
    return [question(number) for number in range(start, start + count)]


def texts(count, length=60):
    return [{"text": " ".join(random.Random(n).choices(WORDS, k=length))} for n in range(count)]


def test_a_question_becomes_a_prompt_and_its_title_the_supervised_part(prepare):
    prepared = prepare({"law": questions(40)})
    for row, text in zip(prepared.rows("train"), prepared.texts("train"), strict=True):
        start, end = row.spans.tolist()
        assert end == len(row.input_ids)
        assert text.endswith("</s>")
        assert text.count("<s>assistant") == 1
        assert row.source == "law" and len(row.id) == 16
    train = {row["title"] for row in questions(40)}
    assert all(text.split("<s>assistant\n")[1][:-4] in train for text in prepared.texts("train"))


def test_every_row_is_in_a_split_or_counted(prepare):
    rows = questions(30) + questions(5) + [{"body": "b" * 40}, {"body": "", "title": "t"}]
    prepared = prepare({"law": rows})
    metrics = prepared.metrics
    kept = sum(metrics[split]["documents"] for split in ("train", "validation", "test"))
    dropped = Counter(each["reason"] for each in prepared.rejects)
    assert metrics["read"] == len(rows) == kept + sum(dropped.values())
    assert metrics["dropped"] == {"law": dict(dropped)}
    assert dropped == {"duplicate": 5, "empty_answer": 1, "empty_prompt": 1}


def test_a_row_without_a_title_is_counted(prepare):
    prepared = prepare({"law": [*questions(20), {"body": "May I keep the deposit?"}]})
    assert prepared.reasons() == [("law:20", "empty_answer")]


def test_a_column_that_no_row_has_is_an_error_that_names_those_there_are(prepare):
    with pytest.raises(ValueError) as error:
        prepare({"law": questions(5)}, documents={"prompt": "{question}", "answer": "{title}"})
    assert "documents.law.prompt names column 'question'" in str(error.value)
    assert "it has: body, title" in str(error.value)


BAD_ROWS = [
    ({"body": None, "title": "Title"}, "empty_prompt"),
    ({"body": float("nan"), "title": "Title"}, "empty_prompt"),
    ({"body": " \n\t ", "title": "Title"}, "empty_prompt"),
    ({"body": " \u200b\ufeff ", "title": "Title"}, "empty_text"),
    ({"body": "May I keep it?", "title": "\ufeff"}, "empty_text"),
    ({"body": {"text": "May I keep it?"}, "title": "Title"}, "body_is_no_text"),
    ({"body": ["May I", ["keep it?"]], "title": "Title"}, "body_is_no_text"),
    ({"title": "Title"}, "empty_prompt"),
    ({}, "empty_prompt"),
    ({"body": "Why?", "title": "So"}, "too_short"),
    ({"body": "word " * 30_000, "title": "Title"}, "too_long"),
    ({"body": "Is </s> a word that ends all?", "title": "Title"}, "special_token"),
    ({"body": "May I keep the deposit?", "title": "<s>assistant"}, "special_token"),
    ({"body": "May I keep the deposit?", "title": "title " * 300}, "answer_too_long"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
def test_a_bad_row_is_one_counted_reject(prepare, row, reason):
    prepared = prepare({"law": [*questions(12), row]})
    assert ("law:12", reason) in prepared.reasons()
    assert prepared.metrics["read"] == 13


def test_numbers_and_lists_are_text_as_people_write_them(prepare):
    row = {"body": ["2 eggs", 500, True], "title": 7.5}
    turns = build_document(row, parse_documents({"prompt": "{body}", "answer": "{title}"}, "law"))
    assert turns == [("user", "2 eggs\n500\ntrue"), ("assistant", "7.5")]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{body", "a '{' that is not closed"),
        ("}", "a single '}'"),
        ("{}", "name a column between the braces"),
        ("no column", "name at least one column"),
    ],
)
def test_a_malformed_template_is_named(template, message):
    with pytest.raises(ValueError, match="documents.law.prompt") as error:
        parse_template(template, "documents.law.prompt")
    assert message in str(error.value)


def test_a_template_reads_columns_and_nothing_else():
    template = parse_template("{{{a.b}}} {c d[0]}", "key")
    assert template.fill({"a.b": "x", "c d[0]": "y"}) == "{x} y"
    assert template.fill({"a.b": "{secret}", "c d[0]": ""}) == "{{secret}} "


@pytest.mark.parametrize("mode", ["completion", "causal", "chat"])
def test_two_processes_write_the_same_bytes_as_one(prepare, monkeypatch, mode):
    monkeypatch.setattr("finetune.records.ROWS_PER_GROUP", 7)
    sources = {"law": questions(40), "food": questions(30, start=100)}
    if mode == "causal":
        sources = {"law": texts(40), "food": texts(30, 400)}
    if mode == "chat":
        sources = {"law": [{"messages": talk(n)} for n in range(40)]}
    one = prepare(sources, mode, max_length=384).bytes()
    assert prepare(sources, mode, workers=2, max_length=384).bytes() == one
    assert len(one) == 12


def test_adding_documents_moves_no_other(prepare):
    before = prepare({"law": questions(60)})
    after = prepare({"law": questions(40, start=500) + questions(60)})
    for split in ("train", "validation", "test"):
        assert before.ids(split) and before.ids(split) <= after.ids(split)


def test_a_source_keeps_its_own_splits(prepare):
    rows = [("train", row) for row in questions(20)]
    rows += [("validation", row) for row in questions(5, 20)] + [
        ("test", row) for row in questions(5, 25)
    ]
    prepared = prepare({"law": rows}, own=["train", "validation", "test"])
    assert [prepared.metrics[split]["rows"] for split in ("train", "validation", "test")] == [
        20,
        5,
        5,
    ]


def test_a_split_that_a_source_lacks_is_taken_from_its_training_rows(prepare):
    rows = [("train", row) for row in questions(60)] + [("test", row) for row in questions(5, 60)]
    prepared = prepare({"law": rows}, own=["train", "test"], validation_share=0.3)
    assert prepared.metrics["test"]["rows"] == 5
    assert 8 <= prepared.metrics["validation"]["rows"] <= 30


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30),
    st.floats(0, 0.5),
    st.floats(0, 0.4),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=12),
)
def test_a_cluster_has_one_split_whatever_its_order_and_the_others(hashes, test, validation, pairs):
    class Shares:
        test_share, validation_share = test, validation

    def split(identities, joined):
        count = len(identities)
        cluster = clusters(count, np.array(joined, np.int64).reshape(-1, 2))
        values = np.array(identities, np.uint64)
        own, missing = np.zeros(count, np.int8), np.ones((count, 3), bool)
        return choose_splits(values, own, missing, cluster, Shares)

    count = len(hashes)
    pairs = [(a, b) for a, b in pairs if a < count and b < count]
    found = split(hashes, pairs)
    assert all(found[a] == found[b] for a, b in pairs)
    turned = [(count - 1 - a, count - 1 - b) for a, b in pairs]
    assert split(hashes[::-1], turned)[::-1].tolist() == found.tolist()
    assert split([*hashes, 7], pairs)[:count].tolist() == found.tolist()


def test_large_clusters_fall_into_each_split_as_often_as_params_say():
    class Shares:
        test_share, validation_share = 0.2, 0.1

    drawn = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    cluster = np.arange(20_000) // 20 * 20
    missing = np.ones((20_000, 3), bool)
    split = choose_splits(drawn, np.zeros(20_000, np.int8), missing, cluster, Shares)
    assert np.bincount(split[::20]) / 1_000 == pytest.approx([0.7, 0.1, 0.2], abs=0.04)


def test_rows_of_a_source_with_splits_of_its_own_stay_where_they_are():
    class Shares:
        test_share, validation_share = 0.9, 0.05

    own = np.array([0, 2, 1, 0], np.int8)
    hashes, alone = np.arange(4, dtype=np.uint64), np.arange(4)
    none = np.zeros((4, 3), bool)
    assert choose_splits(hashes, own, none, alone, Shares).tolist() == [0, 2, 1, 0]
    free = none.copy()
    free[3] = True  # of a source without splits, alike to a test row of another
    joined = np.array([0, 1, 2, 1])
    assert choose_splits(hashes, own, free, joined, Shares).tolist() == [0, 2, 1, 2]


def test_the_same_question_is_never_in_two_splits(prepare):
    rows = [{**row, "title": f"{row['title']} {n}"} for n in range(4) for row in questions(40)]
    prepared = prepare({"law": rows}, near_duplicates=False)
    asked = [{text.split("<s>assistant")[0] for text in prepared.texts(s)}
             for s in ("train", "validation", "test")]  # fmt: skip
    assert all(asked) and not (asked[0] & asked[1] or asked[0] & asked[2] or asked[1] & asked[2])
    assert prepared.metrics["train"]["rows"] == 4 * len(asked[0])


def test_a_long_question_is_cut_and_its_title_is_not(prepare):
    long = {"body": "may I " * 300 + "keep the deposit?", "title": "May I?"}
    prepared = prepare({"law": [*questions(30), long]}, validation_share=0.0, test_share=0.0)
    assert 0 < prepared.metrics["cut"] <= 0.1
    rows = {text.split("<s>assistant\n")[1]: row for text, row in
            zip(prepared.texts("train"), prepared.rows("train"), strict=True)}  # fmt: skip
    assert 250 < len(rows["May I?</s>"].input_ids) <= 256


def test_more_cut_questions_than_allowed_fail_the_stage(prepare, tmp_path):
    with pytest.raises(ValueError, match=r"examples are cut .* raise preprocess.max_length"):
        prepare({"law": questions(30)}, max_length=130, max_truncated_share=0.05)
    assert not (tmp_path / "data/prepared").exists()


def test_test_rows_come_with_their_texts_in_the_same_order(prepare, tmp_path):
    prepared = prepare({"law": questions(60)})
    lines = (tmp_path / "data/prepared/test/texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row.id for row in prepared.rows("test")]
    for line, text in zip(lines, prepared.texts("test"), strict=True):
        assert json.loads(line)["question"] in text
        assert text.endswith(json.loads(line)["reference"] + "</s>")


def test_causal_pieces_hold_every_token_once_with_one_bos_and_one_eos(prepare, tiny_base):
    rows = [{"text": "\n\n".join(" ".join(WORDS[n:]) + "." for n in range(12))}, *texts(8)]
    prepared = prepare({"law": rows}, "causal", max_length=64, validation_share=0.0, test_share=0.0)
    tokenizer = tokenise.load(tiny_base)
    by_document: dict[str, list[int]] = {}
    for row in prepared.rows("train"):
        assert len(row.input_ids) <= 64
        assert row.spans.tolist() == [1, len(row.input_ids)]
        by_document.setdefault(row.id, []).extend(row.input_ids.tolist())
    written = sorted(by_document.values())
    expected = [tokenizer(row["text"], add_special_tokens=False).input_ids for row in rows]
    assert written == sorted([*ids, tokenizer.eos_token_id] for ids in expected)


def test_pieces_end_between_paragraphs_or_sentences():
    text = "One two three four.\n\nFive six. Seven eight nine ten eleven twelve thirteen."
    offsets, start = [], 0
    for word in text.split(" "):
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    ends = cut_text(text, offsets, 0, 7)
    assert [text[offsets[end][0] :].split()[0] for end in ends] == ["Seven", "thirteen."]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "bb", ". ", "\n", "\n\n", " ", "。"]), min_size=1, max_size=200),
    st.integers(2, 40),
    st.integers(0, 1),
)
def test_pieces_lose_no_token_and_keep_to_their_length(parts, max_tokens, before):
    text = "".join(parts)
    bounds = [0]
    for part in parts:
        bounds.append(bounds[-1] + len(part))
    total = before + len(parts) + 1
    ends = cut_text(text, list(zip(bounds, bounds[1:], strict=False)), before, max_tokens)
    sizes = [b - a for a, b in zip([0, *ends], [*ends, total], strict=True)]
    assert sum(sizes) == total
    assert all(0 < size <= max_tokens for size in sizes)


def test_a_special_tokens_name_is_plain_text_in_causal_mode(prepare, tiny_base):
    rows = [{"text": "print('</s>') # the end of <s> it"}, *texts(4)]
    prepared = prepare({"code": rows}, "causal", validation_share=0.0, test_share=0.0)
    eos = tokenise.load(tiny_base).eos_token_id
    assert all(row.input_ids.tolist().count(eos) == 1 for row in prepared.rows("train"))
    assert any("print('</s>')" in text for text in prepared.texts("train"))


def talk(number):
    """A conversation of one to three exchanges."""
    turns = [{"role": "system", "content": "Be kind."}] if number % 3 == 0 else []
    for at in range(number % 3 + 1):
        turns += [
            {"role": "user", "content": question(10 * number + at)["body"]},
            {"role": "assistant", "content": question(10 * number + at)["title"]},
        ]
    return turns


def test_in_a_conversation_the_assistants_turns_alone_are_supervised(prepare, tiny_base):
    talks = [talk(number) for number in range(30)]
    prepared = prepare({"chat": [{"messages": each} for each in talks]}, "chat", max_length=384)
    tokenizer = tokenise.load(tiny_base)
    answers = {tuple(m["content"] for m in each if m["role"] == "assistant") for each in talks}
    for row in prepared.rows("train"):
        spans = row.spans.reshape(-1, 2).tolist()
        ids = row.input_ids.tolist()
        assert all(ids[end - 1] == tokenizer.eos_token_id for _, end in spans)
        assert tuple(tokenizer.decode(ids[a : b - 1]) for a, b in spans) in answers


BAD_TALKS = [
    (None, "no_messages"),
    ([], "no_messages"),
    ("[{", "messages_are_no_json"),
    (["hello"], "malformed_message"),
    ([{"role": "tool", "content": "x"}], "no_assistant_turn"),
    ([{"role": "narrator", "content": "x"}], "unknown_role"),
    ([{"role": 5, "content": "x"}], "unknown_role"),
    ([{"role": "user", "content": ""}], "empty_turn"),
    ([{"role": "user", "content": "Why?"}], "no_assistant_turn"),
    ([*talk(1), {"role": "assistant", "content": "And."}], "turns_do_not_alternate"),
    ([{"role": "assistant", "content": "Hi!"}, *talk(1)], "no_question_first"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "reason"), BAD_TALKS)
def test_a_malformed_conversation_is_rejected(messages, reason):
    templates = parse_documents({"messages": "{messages}"}, "chat")
    with pytest.raises(Rejected) as rejected:
        build_document({"messages": messages}, templates)
    assert rejected.value.reason == reason


def test_conversations_come_as_json_text_and_by_sharegpts_names_too():
    templates = parse_documents({"messages": "{talk}"}, "chat")
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    expected = [("user", "Why?"), ("assistant", "So.")]
    assert build_document({"talk": turns}, templates) == expected
    assert build_document({"talk": json.dumps(turns)}, templates) == expected


def test_an_interrupted_run_continues_and_ends_with_the_same_bytes(prepare, monkeypatch, tmp_path):
    monkeypatch.setattr("finetune.records.ROWS_PER_GROUP", 10)
    sources = {"law": questions(60)}
    whole = prepare(sources).bytes()
    done, write = [], tokenise.write_examples

    def stop_at_the_third(task, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        write(task, *rest)
        done.append(task.path)

    monkeypatch.setattr(tokenise, "write_examples", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(sources)
    [work] = (tmp_path / "data/work").glob("preprocess-*")
    assert {path.name for path in done} <= {path.name for path in work.iterdir()}
    again = []

    def record(task, *rest):
        again.append(task.path)
        write(task, *rest)

    monkeypatch.setattr(tokenise, "write_examples", record)
    assert prepare(sources).bytes() == whole
    assert len(again) == 4 and not set(again) & set(done)
    assert not work.exists()


def test_other_settings_never_continue_the_work_of_these(prepare, monkeypatch, tmp_path):
    with pytest.raises(ValueError):
        prepare({"law": questions(30)}, max_length=130, max_truncated_share=0.0)
    [left] = (tmp_path / "data/work").glob("preprocess-*")
    prepare({"law": questions(30)})
    assert left.exists()  # of the failed settings, to continue when they are back


def test_personal_data_is_dropped_or_kept_where_params_say_so(prepare):
    rows = [*questions(20), {"body": "Reach me at a@b.example or +44 20 7946 0958.", "title": "T"}]
    assert ("law:20", "has_email") in prepare({"law": rows}, emails="drop").reasons()
    prepared = prepare({"law": rows}, emails="keep", phones="mask", test_share=0.0)
    assert any("a@b.example or [phone]." in text for text in prepared.texts("train"))
    assert prepared.metrics["mended"] == {"law": {"phone": 1}}


@pytest.mark.parametrize(
    ("example", "fault"),
    [
        (Piece([5, 6, 2], []), "no supervised token"),
        (Piece([5, 6, 2], [2, 2]), "no supervised token"),
        (Piece([5, 6, 7], [1, 3]), "no supervised end token"),
        (Piece([5, 6, 2], [1, 2]), "no supervised end token"),
        (Piece([1, 1, 6, 2], [2, 4]), "two BOS"),
        (Piece([5, 6, 2], [0, 3]), "not in order"),
        (Piece([5, 6, 2], [2, 4]), "not in order"),
        (Piece([5, 6, 2], [2, 3, 1, 3]), "not in order"),
    ],
)
def test_the_audit_stops_at_an_example_that_would_teach_the_wrong_thing(tiny_base, example, fault):
    with pytest.raises(ValueError, match=f"mask audit: the example of law:7 has .*{fault}"):
        audit(tokenise.load(tiny_base), [example], "law:7")


def test_shares_are_reported_beside_their_targets(prepare, tmp_path):
    sources = {
        "law": texts(60, 50),
        "food": [{"text": f"food {each['text'][::-1]}"} for each in texts(60, 20)],
    }
    prepared = prepare(
        sources, "causal", mixture={"law": 0.75, "food": 0.25}, mixture_unit="tokens"
    )
    tokens = Counter()
    for row in prepared.rows("train"):
        tokens[row.source] += len(row.input_ids)
    shares = prepared.metrics["shares"]
    assert shares["law"]["achieved"] == pytest.approx(tokens["law"] / tokens.total(), abs=1e-6)
    assert shares["law"]["achieved"] == pytest.approx(0.75, abs=0.02)
    table = (tmp_path / "reports/data/sources.tsv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "source\tshare\tkind" and "law\t0.750000\ttarget" in table
    assert prepared.metrics["dropped"]["food"]["mixture"] > 0


def test_the_page_shows_ten_examples_of_each_split_and_runs_nothing_of_theirs(prepare, tmp_path):
    rows = [{"body": f"<script>alert({n})</script> {r['body']}", "title": r["title"]}
            for n, r in enumerate(questions(80))]  # fmt: skip
    prepared = prepare({"law": rows})
    page = (tmp_path / "reports/data/examples.html").read_text(encoding="utf-8")
    rows = [prepared.metrics[split]["rows"] for split in ("train", "validation", "test")]
    assert page.count("<article>") == sum(min(10, each) for each in rows)
    assert "&lt;script&gt;alert(" in page and "<script" not in page and "http" not in page
    assert page.count("<mark>") == page.count("<article>")


def test_every_example_leads_to_its_origin_and_licence(prepare, tmp_path):
    prepared = prepare({"law": questions(40), "food": questions(40, 60)})
    table = pq.read_table(tmp_path / "reports/data/documents.parquet").to_pylist()
    found = {each["id"]: each for each in table}
    for split in ("train", "validation", "test"):
        for row in prepared.rows(split):
            assert (found[row.id]["split"], found[row.id]["source"]) == (split, row.source)
            assert found[row.id]["origin"].startswith(f"{row.source}:")
            assert found[row.id]["license"] == "CC0-1.0"
    assert len(table) == sum(
        prepared.metrics[s]["documents"] for s in ("train", "validation", "test")
    )


def test_a_histogram_holds_every_row(prepare, tmp_path):
    prepared = prepare({"law": questions(60)})
    lines = (tmp_path / "reports/data/lengths.tsv").read_text(encoding="utf-8").splitlines()[1:]
    counts = Counter()
    for line in lines:
        _, rows, split = line.split("\t")
        counts[split] += int(rows)
    assert counts == {split: prepared.metrics[split]["rows"] for split in counts}


def test_an_empty_source_is_an_error(prepare):
    with pytest.raises(ValueError, match="no training document of law is left .it has no row"):
        prepare({"law": []})


def test_a_source_of_which_nothing_is_left_says_why(prepare):
    with pytest.raises(ValueError, match=r"no training document of law is left .*empty_answer 3"):
        prepare({"law": [{"body": f"May I keep it? {n}"} for n in range(3)] + [{"title": "T"}]})


def test_sources_that_were_not_fetched_are_named(
    prepare, tmp_path, tiny_base, write_params, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_params(
        tmp_path, data=declare(["law"]), documents={"law": {"prompt": "{a}", "answer": "{b}"}}
    )
    with pytest.raises(ValueError, match=r"data/raw/law holds no rows.*run `dvc repro`"):
        run_stage(tiny_base)


def test_a_missing_base_names_the_stage_to_run(prepare, tmp_path):
    prepare({"law": questions(10)})
    with pytest.raises(ValueError, match="nowhere holds no tokenizer; run `dvc repro fetch_model`"):
        run_stage(tmp_path / "nowhere")


def test_work_spread_by_datatrove_ends_in_the_same_bytes(prepare, monkeypatch, tmp_path, tiny_base):
    spread = pytest.importorskip("tools.spread")
    monkeypatch.setattr("finetune.records.ROWS_PER_GROUP", 10)
    sources = {"law": questions(30), "food": questions(20, 60)}
    whole = prepare(sources).bytes()
    arguments = [str(tiny_base), "data/raw", "--tasks", "2", "--workers", "2"]
    arguments += ["--option", "start_method=fork"]
    monkeypatch.setattr("sys.argv", ["spread", *arguments])
    spread.main()
    made = []
    monkeypatch.setattr(tokenise, "write_examples", lambda *task: made.append(task))
    assert run_stage(tiny_base).bytes() == whole
    assert made == []
    assert not list((tmp_path / "data/work").glob("preprocess-*"))


def test_parts_that_nobody_makes_any_more_end_in_an_error(monkeypatch, tmp_path):
    """As datatrove's executor for Ray leaves them where a task has failed."""
    spread = pytest.importorskip("tools.spread")
    monkeypatch.setattr(spread, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(spread, "PATIENCE_SECONDS", 0.1)
    tasks = [SimpleNamespace(path=tmp_path / name) for name in ("a", "b")]
    tasks[0].path.touch()
    ended = SimpleNamespace(run=lambda: None)
    work = spread.SpreadWork(tmp_path, None, lambda *_: ended)
    with pytest.raises(ValueError, match=r"documents: 1 of 1 parts were not made.*logs/documents-"):
        work.run("documents", print, tasks)
