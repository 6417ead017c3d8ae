"""Copies are found within and across sources and splits, and the evaluation copy stays."""

import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.records import SPLITS
from stages.preprocess import buckets, duplicates
from stages.preprocess.duplicates import (
    DUPLICATE,
    JOINED,
    NEAR_DUPLICATE,
    candidate_pairs,
    find_relations,
)
from stages.preprocess.identity import hash_text, question_keys
from stages.preprocess.shards import Counts, index_shards, write_shard
from stages.preprocess.shingles import (
    PERMUTATIONS,
    RECALL,
    bands,
    shape,
    shingles,
    similarity,
    threshold,
)
from stages.preprocess.splits import TEST, TRAIN, VALIDATION, words
from stages.preprocess.steps import Document
from stages.preprocess.turns import Turn
from stages.preprocess.work import Work
from tests.preparing import declare, run_stage, write_source

VOCABULARY = [f"word{n}" for n in range(2_000)]


class Settings:
    """What the search reads of params."""

    near_duplicates = True
    duplicate_similarity = 0.8


def _text(seed, length=100):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def _changed(text, share, seed=0):
    drawn = random.Random(seed)
    return " ".join("other" if drawn.random() < share else word for word in text.split())


def _find(folder, *shards, settings=Settings, names=None):
    """Relations as (document, other, kind); each shard is a list of (own split, text)."""
    paths = []
    for number, documents in enumerate(shards):
        made = [_document(split, text) for split, text in documents]
        paths.append(folder / f"documents-{number}.arrow")
        write_shard(paths[-1], made, Counts(), threshold(settings), [-1] * len(made))
    index = index_shards(paths, names or [f"source{n}" for n in range(len(paths))])
    folder.joinpath("work").mkdir()
    found = find_relations(Work(folder / "work", None), index, settings)
    return [(int(d), int(o), int(k)) for d, o, k in found.tolist()]


def _copies(folder, *shards, **more):
    """Those that are copies, as (document, other), the earlier first; and how."""
    kinds = {DUPLICATE: "duplicate", NEAR_DUPLICATE: "near_duplicate"}
    found = _find(folder, *shards, **more)
    return {(max(d, o), min(d, o)): kinds[k] for d, o, k in found if k in kinds}


def _document(split, text):
    document = Document("it", {"text": text}, SPLITS[split], "x", "", [Turn("text", text)])
    document.id = document.identity = hash_text(text)
    document.compared = [text]
    document.keys = question_keys([text], document.turns, False)
    return document


def test_of_equal_documents_the_first_stays(tmp_path):
    texts = [(TRAIN, _text(1)), (TRAIN, _text(2)), (TRAIN, _text(1)), (TRAIN, _text(1))]
    found = _find(tmp_path, texts)
    assert [(d, o) for d, o, kind in found if kind == DUPLICATE] == [(2, 0), (3, 0), (3, 2)]


def test_a_copy_with_a_few_words_changed_is_a_near_duplicate(tmp_path):
    text = _text(1)
    texts = [(TRAIN, text), (TRAIN, _changed(text, 0.02)), (TRAIN, _changed(text, 0.5))]
    assert _copies(tmp_path, texts) == {(1, 0): "near_duplicate"}


def test_case_and_punctuation_make_no_other_document(tmp_path):
    texts = [(TRAIN, "May I keep the deposit, then?"), (TRAIN, "may I KEEP the deposit then")]
    assert _copies(tmp_path, texts) == {(1, 0): "near_duplicate"}


@pytest.mark.parametrize("texts", [("yes", "no"), ("a b", "a c"), ("a b c d e", "a b c d f")])
def test_short_texts_are_compared_whole(tmp_path, texts):
    assert _copies(tmp_path, [(TRAIN, text) for text in texts]) == {}
    (tmp_path / "again").mkdir()
    assert len(_copies(tmp_path / "again", [(TRAIN, texts[0]), (TRAIN, texts[0] + "!")])) == 1


def test_copies_are_found_across_sources(tmp_path):
    text = _text(1)
    found = _copies(tmp_path, [(TRAIN, _text(2)), (TRAIN, text)], [(TRAIN, _changed(text, 0.02))])
    assert found == {(2, 1): "near_duplicate"}


def test_the_evaluation_copy_stays_wherever_it_stands(tmp_path):
    text, other = _text(1), _text(2)
    first = [(TRAIN, text), (TRAIN, _changed(other, 0.02)), (VALIDATION, text)]
    second = [(TEST, text), (TEST, other)]
    found = {(d, o) for d, o, kind in _find(tmp_path, first, second) if kind != JOINED}
    assert {(0, 3), (1, 4), (2, 3)} <= found
    assert not {(3, 0), (4, 1), (3, 2), (2, 0)} & found


def test_without_near_duplicates_only_equal_ones_are_found(tmp_path):
    class Exact(Settings):
        near_duplicates = False

    text = _text(1)
    texts = [(TRAIN, text), (TRAIN, _changed(text, 0.02)), (TRAIN, text)]
    assert _copies(tmp_path, texts, settings=Exact) == {(2, 0): "duplicate"}


def test_a_long_instruction_that_most_share_makes_no_two_alike(tmp_path):
    rules, drawn = _text(0, 400), random.Random(3)
    asked = [" ".join(drawn.choices(VOCABULARY, k=12)) for _ in range(60)]
    texts = [(TRAIN, f"{rules} {each}") for each in asked]
    texts.append((TRAIN, f"{rules.upper()} {asked[7]}!"))
    assert _copies(tmp_path, texts) == {(60, 7): "near_duplicate"}


def test_many_small_buckets_find_the_same_as_one(tmp_path, monkeypatch):
    drawn = random.Random(5)
    texts = [_text(n, 60) for n in range(60)]
    texts += [
        _changed(drawn.choice(texts), drawn.choice([0, 0.02, 0.1, 0.4]), n) for n in range(90)
    ]
    parts = [[(drawn.choice([TRAIN, TRAIN, TEST]), text) for text in texts[n::5]] for n in range(5)]
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    one = _find(tmp_path / "one", *parts)
    monkeypatch.setattr(duplicates, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(duplicates, "MAX_FILES", 8)
    assert buckets.MAX_FILES > 8
    assert _find(tmp_path / "many", *parts) == one
    assert len(one) > 30


def test_what_is_found_is_what_comparing_all_with_all_finds(tmp_path):
    drawn = random.Random(9)
    texts = [_text(n, 80) for n in range(30)]
    texts += [_changed(drawn.choice(texts), drawn.uniform(0, 0.08), n) for n in range(60)]
    found = {document for document, _ in _copies(tmp_path, [(TRAIN, text) for text in texts])}
    sets = [shingles(text) for text in texts]
    alike = np.array(
        [[similarity(a, b) for b in sets[:n]] + [0] for n, a in enumerate(sets)], object
    )
    best = np.array([max(row) for row in alike])
    assert found <= set(np.flatnonzero(best >= 0.8).tolist())  # each is verified word by word
    missed = set(np.flatnonzero(best >= 0.85).tolist()) - found
    assert not missed


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30)), max_size=40, unique=True))
def test_candidates_share_a_hash_and_leave_no_group_out(entries):
    array = np.array(entries, duplicates._ENTRY)
    rank = np.random.default_rng(0).permutation(31)
    pairs = candidate_pairs(array, rank).tolist()
    groups: dict[int, list[int]] = {}
    for hash, document in entries:
        groups.setdefault(hash, []).append(document)
    for document, other in pairs:
        assert rank[other] < rank[document]
        assert any(document in group and other in group for group in groups.values())
    for group in groups.values():
        first = min(group, key=lambda each: rank[each])
        for document in set(group) - {first}:
            assert (document, first) in pairs


@pytest.mark.parametrize("limit", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_reach_their_recall_at_the_limit(limit):
    count, rows = shape(limit)
    assert count * rows <= PERMUTATIONS
    assert 1 - (1 - limit**rows) ** count >= RECALL
    text = _text(1, 200)
    equal = bands([words(text), words(text), words(_text(2, 200))], limit)
    assert (equal[0] == equal[1]).all()
    assert not (equal[0] == equal[2]).any()


def test_similarity_is_the_share_of_common_runs_of_five_words():
    a, b = shingles("a b c d e f g"), shingles("a b c d e f x")
    assert similarity(a, b) == 2 / 4
    assert similarity(a, a) == 1


def test_too_many_leaks_fail_the_stage_and_name_the_pairs(
    tmp_path, monkeypatch, tiny_base, write_params
):
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, "law", [("train", {"text": _text(n)}) for n in range(8)]
                 + [("test", {"text": _text(n)}) for n in (2, 20)]
                 + [("validation", {"text": _text(30)})])  # fmt: skip
    _causal(write_params, tmp_path, ["law"], own=SPLITS, preprocess__max_leak_share=0.1)
    with pytest.raises(ValueError, match=r"1 of 8 .*\(12.5%\).*law:2 resembles law:8"):
        run_stage(tiny_base)
    assert not (tmp_path / "data/prepared").exists()
    _causal(write_params, tmp_path, ["law"], own=SPLITS, preprocess__max_leak_share=0.2)
    prepared = run_stage(tiny_base)
    assert prepared.metrics["leak"] == 0.125
    assert [(r["origin"], r["reason"], r["of"]) for r in prepared.rejects] == [
        ("law:2", "leak", "law:8")
    ]


def test_leak_files_of_the_users_own_keep_their_texts_out_of_training(
    tmp_path, monkeypatch, tiny_base, write_params
):
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, "law", [{"text": _text(n)} for n in range(10)])
    rows = [{"question": _changed(_text(3), 0.02), "choices": ["a", "b"]}, {"question": "Why?"}]
    (tmp_path / "exam.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    (tmp_path / "exam.txt").write_text(_text(7), encoding="utf-8")
    _causal(write_params, tmp_path, ["law"], preprocess__leak_files=["exam.jsonl", "exam.txt"],
            preprocess__validation_share=0.0, preprocess__test_share=0.0,
            preprocess__max_leak_share=1.0)  # fmt: skip
    prepared = run_stage(tiny_base)
    assert [
        (each["origin"], each["reason"], each["of"].split(":")[0]) for each in prepared.rejects
    ] == [
        ("law:3", "leak_file", "exam.jsonl"),
        ("law:7", "leak_file", "exam.txt"),
    ]


def test_a_leak_file_that_is_missing_is_named(tmp_path, monkeypatch, tiny_base, write_params):
    monkeypatch.chdir(tmp_path)
    write_source(tmp_path, "law", [{"text": _text(1)}])
    _causal(write_params, tmp_path, ["law"], preprocess__leak_files=["exam.txt"])
    with pytest.raises((ValueError, OSError), match="exam.txt"):
        run_stage(tiny_base)


def _causal(write_params, folder, names, own=(), **changes):
    write_params(
        folder,
        data=declare(names, own),
        documents={name: {"text": "{text}"} for name in names},
        mixture=dict.fromkeys(names, 1.0),
        preprocess__mode="causal",
        **changes,
    )
