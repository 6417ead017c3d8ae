"""Rows become documents: nested columns, absent ones, and conversations as people keep them."""

import json

import pytest

from stages.preprocess.documents import (
    build_document,
    check_columns,
    cut_range,
    parse_documents,
    parse_template,
)
from stages.preprocess.turns import Rejected, Turn

CHAT = parse_documents({"messages": "{messages}"}, "chat")
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Rome"}'}}


def talk(*messages, **row):
    """The turns of a conversation."""
    return build_document({"messages": list(messages), **row}, CHAT)


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{a.b}", {"a": {"b": "nested"}}, "nested"),
        ("{a.b}", {"a.b": "whole name", "a": {"b": "nested"}}, "whole name"),
        ("{names[0].text}", {"names": [{"lang": "en", "text": "Soup"}]}, "Soup"),
        ("{names[-1].text}", {"names": [{"text": "a"}, {"text": "z"}]}, "z"),
        ("x {names[3].text}{b}", {"names": [], "b": "y"}, "x y"),
        ("{price: EUR}", {"price: EUR": 5}, "5"),
        ("{really!}", {"really!": "yes"}, "yes"),
        ('{"{odd}"} {{b}}', {"{odd}": "named"}, "named {b}"),
        ("{instruction}\n\n{input}", {"instruction": "Do."}, "Do.\n\n"),
        ("{input}", {}, ""),
        ("{a} {b} {c}", {"a": True, "b": False, "c": [True, 1, "x"]}, "true false true\n1\nx"),
        ("{price}", {"price": "1.10"}, "1.10"),
    ],
)
def test_a_template_reads_what_it_names(template, row, text):
    assert parse_template(template, "key").fill(row) == text


@pytest.mark.parametrize(
    "template",
    [
        "{a.__class__}",
        "{a.__class__.__mro__[1]}",
        "{a[0].__class__}",
        "{a!r}",
        "{a:>9}",
        "{a.upper}",
    ]
    + ["{__class__}", "{self.columns}", "{fill.__globals__}", "{0}", "{a.__init__.__globals__}"],
)
def test_a_template_reaches_columns_and_no_attribute_of_them(template):
    assert parse_template(template, "key").fill({"a": "x", "b": "y"}) == ""


def test_braces_in_a_row_are_text():
    row = {"a": "{b} {a.__class__}", "b": "y"}
    assert parse_template("{a} {b}", "key").fill(row) == "{b} {a.__class__} y"


def test_a_path_is_a_column_where_its_beginning_is():
    templates = parse_documents({"text": "{names[0].text}"}, "food")
    check_columns(templates, [{"names": []}], "food")
    with pytest.raises(ValueError, match=r"names column 'names\[0\].text', which food lacks"):
        check_columns(templates, [{"name": ""}], "food")


def test_the_range_that_may_be_cut_survives_cleaning():
    templates = parse_documents(
        {"prompt": "Context: {context}\n\nQ: {question}", "answer": "{a}"}, "x"
    )
    row = {"context": " long  ", "question": "why?", "a": "so"}
    turn = build_document(row, templates, "context")[0].map(str.strip)
    start, end = cut_range(turn)
    assert turn[1][start:end].strip() == "long"
    assert cut_range(build_document(row, templates)[0]) is None


@pytest.mark.parametrize("key", ["weight", "train", "loss", "training"])
@pytest.mark.parametrize("value", [0, False, 0.0, "false"])
def test_a_message_that_says_so_is_not_learnt(key, value):
    turns = talk(user("a"), assistant("b", **{key: value}), user("c"), assistant("d", **{key: 1}))
    assert [turn.more.get("train", True) for turn in turns] == [True, False, True, True]


@pytest.mark.parametrize(("value", "learnt"), [("1.00", True), ("0.00", False), ("1e0", True)])
def test_a_weight_may_have_any_number_of_digits(value, learnt):
    turns = talk(user("a"), assistant("b"), user("c"), assistant("d", weight=value))
    assert turns[-1].more.get("train", True) is learnt


@pytest.mark.parametrize("value", ["some", [1], float("nan")])
def test_a_weight_that_is_no_number_is_refused(value):
    with pytest.raises(Rejected, match="weight_is_not_0_or_1"):
        talk(user("a"), assistant("b", weight=value))


def test_a_weight_in_between_is_refused():
    with pytest.raises(Rejected, match="weight_is_not_0_or_1"):
        talk(user("a"), assistant("b", weight=0.5))


def test_parts_of_text_are_text_and_other_parts_refuse_the_row():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert talk(user(parts), assistant("b"))[0] == ("user", "one\ntwo")
    with pytest.raises(Rejected, match="content_is_no_text"):
        talk(user([*parts, {"type": "image_url", "image_url": {"url": "x"}}]), assistant("b"))


def test_a_call_of_a_tool_is_no_empty_turn():
    result = {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    turns = talk(user("a"), assistant(None, tool_calls=[CALL]), result, assistant("b"), tools="[]")
    assert [turn[0] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    [call] = turns[1].more["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": {"at": "Rome"}}
    assert turns[2].more == {"tool_call_id": "c1"}


def test_sharegpts_calls_of_functions_are_calls_of_tools():
    call = json.dumps({"name": "look", "arguments": {"at": "Rome"}})
    rows = [("human", "a"), ("function_call", call), ("observation", "sunny"), ("gpt", "b")]
    turns = talk(
        *({"from": role, "value": text} for role, text in rows),
        tools=json.dumps([{"name": "look", "parameters": {}}]),
    )
    assert turns[1].more["tool_calls"][0]["function"]["name"] == "look"
    assert turns[0].more["tools"] == [
        {"type": "function", "function": {"name": "look", "parameters": {}}}
    ]


@pytest.mark.parametrize("text", [None, "Let me look."])
@pytest.mark.parametrize("encode", [json.dumps, lambda call: call])
def test_openais_older_call_of_a_function_is_a_call_of_a_tool(text, encode):
    result = {"role": "function", "name": "look", "content": "sunny"}
    asked = assistant(text, function_call=encode(CALL["function"]), tool_calls=None)
    turns = talk(user("a"), asked, result, assistant("b", function_call=None))
    assert [turn[0] for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1][1] == (text or "")
    [call] = turns[1].more["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": {"at": "Rome"}}
    assert turns[2].more == {"name": "look"} and turns[3].more == {}


def test_a_call_that_is_written_both_ways_is_one_call():
    asked = assistant(None, tool_calls=[CALL], function_call=CALL["function"])
    result = {"role": "tool", "content": "sunny"}
    calls = talk(user("a"), asked, result, assistant("b"))[1].more["tool_calls"]
    assert [call["id"] for call in calls] == ["c1"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_what_was_thought_before_an_answer_has_many_names(key):
    [_, answer] = talk(user("a"), assistant("b", **{key: "why"}))
    assert answer == ("assistant", "b") and answer.more == {"reasoning_content": "why"}


def test_a_thought_that_is_no_text_refuses_the_row():
    with pytest.raises(Rejected, match="reasoning_is_no_text"):
        talk(user("a"), assistant("b", thinking={"steps": 2}))


@pytest.mark.parametrize("names", [("developer", "Human", "model"), ("system", "USER", "bot")])
def test_roles_have_many_names(names):
    system, asks, answers = names
    turns = talk(
        {"role": system, "content": "s"},
        {"role": asks, "content": "a"},
        {"role": answers, "content": "b"},
    )
    assert [turn[0] for turn in turns] == ["system", "user", "assistant"]


def test_what_stands_behind_the_last_answer_is_cut_off():
    assert talk(user("a"), assistant("b"), user("and?")) == [("user", "a"), ("assistant", "b")]


def test_questions_that_follow_one_another_are_one():
    assert talk(user("a"), user("b"), assistant("c"))[0] == ("user", "a\n\nb")


def test_a_turn_changes_in_all_its_texts():
    turn = Turn("assistant", "x", {"train": False, "tool_calls": [{"a": ["x"]}]})
    changed = turn.map(str.upper)
    assert changed == ("assistant", "X")
    assert changed.more == {"train": False, "tool_calls": [{"a": ["X"]}]}
