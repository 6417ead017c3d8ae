"""Prompts: the same ids as Mistral's own code, and only the question is ever cut."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune.text.prompts import (
    answer_ids,
    bos_ids,
    encode,
    holds_special_token,
    open_tokenizer,
    prompt_text,
    render_chat,
    render_prompts,
    with_instruction,
)
from finetune.text.templates import Words
from tests import mistral_tokenizers as mistral

CHAT = Words(template="chat", system=None, instruction="Write a title.")
GUIDED = Words(template="chat", system="Be brief.", instruction="Write a title.")
PLAIN = Words(template="plain", system=None, instruction="Write a title.")
TURNS = [
    {"role": "user", "content": "May I?  Really\n\nso?"},
    {"role": "assistant", "content": "Yes, £5."},
    {"role": "user", "content": "¿Y ahora? 👩‍🚀"},
    {"role": "assistant", "content": "Nein — später."},
]
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=60
).filter(lambda text: text == text.strip() and text and "<" not in text and "[" not in text)


@dataclass(frozen=True)
class Case:
    """A tokenizer, and Mistral's own encoding of conversations."""

    tokenizer: Any
    golden: Any


@pytest.fixture(scope="session")
def seven(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("7b")
    return Case(open_tokenizer(mistral.write_7b(folder)), mistral.golden_7b())


@pytest.fixture(scope="session")
def twenty_four(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("24b")
    golden = mistral.golden_24b(folder)  # a tekken.json beside tokenizer.json, as on the hub
    return Case(open_tokenizer(mistral.write_24b(folder)), golden)


@pytest.fixture(params=["seven", "twenty_four"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiny(tiny_base):
    return open_tokenizer(tiny_base)


def chat(tokenizer, words, messages, max_tokens):
    """The one example of a conversation, as ids, spans and cut."""
    [found] = render_chat(tokenizer, words, messages, max_tokens)
    return found.ids, found.spans, found.cut


def test_a_prompt_has_the_ids_that_mistrals_own_code_gives_it(case):
    for turn in TURNS:
        messages = with_instruction(case.tokenizer, GUIDED, [{**turn, "role": "user"}])
        [rendered] = render_prompts(case.tokenizer, GUIDED, [turn["content"]], [None])
        assert rendered.ids == case.golden(messages)


def test_a_prompt_with_its_answer_has_the_ids_that_mistrals_own_code_gives_it(case):
    question, answer = TURNS[0]["content"], TURNS[1]["content"]
    [prompt] = render_prompts(case.tokenizer, GUIDED, [question], [None])
    [ids] = answer_ids(case.tokenizer, GUIDED, [answer])
    messages = with_instruction(case.tokenizer, GUIDED, TURNS[:2])
    assert prompt.ids + ids == case.golden(messages)


def test_a_conversation_has_the_ids_that_mistrals_own_code_gives_it(case):
    ids, spans, cut = chat(case.tokenizer, GUIDED, TURNS, 500)
    messages = with_instruction(case.tokenizer, GUIDED, TURNS)
    assert ids == case.golden(messages)
    assert not cut
    for start, end, turn in zip(spans[::2], spans[1::2], TURNS[1::2], strict=True):
        assert ids[end - 1] == case.tokenizer.eos_token_id
        assert case.tokenizer.decode(ids[start : end - 1]).strip() == turn["content"]


@settings(max_examples=60, deadline=None)
@given(question=TEXTS, answer=TEXTS)
def test_any_text_has_the_ids_that_mistrals_own_code_gives_it(seven, question, answer):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    bare = Words(template="chat", system=None, instruction="")
    [prompt] = render_prompts(seven.tokenizer, bare, [question], [None])
    [ids] = answer_ids(seven.tokenizer, bare, [answer])
    assert prompt.ids + ids == seven.golden(messages)


def test_the_system_text_is_folded_into_the_question_where_there_is_no_such_turn(tmp_path, seven):
    folder = mistral.write_7b(tmp_path, mistral.TEMPLATE_7B_NO_SYSTEM)
    tokenizer = open_tokenizer(folder)
    [folded] = with_instruction(tokenizer, GUIDED, TURNS[:1])
    assert folded["content"] == "Be brief.\n\nWrite a title.\n\nMay I?  Really\n\nso?"
    [rendered] = render_prompts(tokenizer, GUIDED, [TURNS[0]["content"]], [None])
    [same] = render_prompts(seven.tokenizer, GUIDED, [TURNS[0]["content"]], [None])
    assert rendered.ids == same.ids


def test_a_conversations_own_system_text_goes_before_that_of_params(twenty_four):
    messages = [{"role": "system", "content": "Be long."}, *TURNS]
    head, *_ = with_instruction(twenty_four.tokenizer, GUIDED, messages)
    assert head == {"role": "system", "content": "Be long."}


def test_bos_stands_once_at_the_beginning(case):
    ids, _, _ = chat(case.tokenizer, GUIDED, TURNS, 500)
    assert ids[0] == case.tokenizer.bos_token_id
    assert ids.count(case.tokenizer.bos_token_id) == 1
    assert bos_ids(case.tokenizer) == [case.tokenizer.bos_token_id]


def test_a_template_that_writes_todays_date_writes_the_same_every_day(twenty_four):
    text = prompt_text(twenty_four.tokenizer, CHAT, "Why?")
    assert "The current date is 2025-01-01." in text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300).map(str.strip).filter(bool), st.integers(8, 120))
@example("0\n10", 32)
def test_only_the_question_is_cut(tiny, question, budget):
    [whole] = render_prompts(tiny, CHAT, [question], [None])
    [cut] = render_prompts(tiny, CHAT, [question], [budget])
    [empty] = render_prompts(tiny, CHAT, [""], [None])
    if cut is None:
        assert budget < len(empty.ids) + 8  # one character may take several tokens
        return
    assert len(cut.ids) <= budget
    assert cut.cut == (len(whole.ids) > budget)
    before, _, last = question.rpartition("\n")
    beginnings = (question, last.lstrip())  # of the last line alone where no more has room
    assert cut.question.endswith(last) or any(b.startswith(cut.question) for b in beginnings)
    assert cut.ids == encode(tiny, [prompt_text(tiny, CHAT, cut.question)])[0]


def test_a_cut_question_fills_its_budget(tiny):
    question = "may I keep the deposit? " * 50
    [cut] = render_prompts(tiny, CHAT, [question], [100])
    assert 97 <= len(cut.ids) <= 100
    assert cut.question and cut.cut


def test_a_budget_too_small_for_the_template_gives_no_prompt(tiny):
    assert render_prompts(tiny, CHAT, ["Why?"], [5]) == [None]


@settings(max_examples=40, deadline=None)
@given(answer=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
def test_an_answer_ends_with_one_eos(tiny, answer):
    if holds_special_token(tiny, answer):
        return
    [ids] = answer_ids(tiny, CHAT, [answer])
    assert ids[-1] == tiny.eos_token_id != tiny.pad_token_id
    assert ids.count(tiny.eos_token_id) == 1
    assert tiny.decode(ids[:-1]) == answer


def test_a_plain_prompt_needs_no_template(tiny):
    [rendered] = render_prompts(tiny, PLAIN, ["Why?"], [None])
    assert tiny.decode(rendered.ids) == "Write a title.\n\nWhy?\n\n"
    [ids] = answer_ids(tiny, PLAIN, ["Because"])
    assert tiny.decode(ids) == "Because</s>"


def test_a_chat_prompt_without_a_template_names_the_key_to_set(tmp_path, tiny_base):
    tokenizer = open_tokenizer(tiny_base)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="set prompt.template to plain"):
        prompt_text(tokenizer, CHAT, "Why?")


def test_a_conversation_that_is_too_long_loses_whole_turns_at_its_end(tiny):
    ids, spans, _ = chat(tiny, CHAT, TURNS, 500)
    shorter, fewer, cut = chat(tiny, CHAT, TURNS, spans[-1] - 1)
    assert cut and fewer == spans[:2]
    assert shorter == ids[: spans[1]]
    assert render_chat(tiny, CHAT, TURNS, spans[1] - 1) == "first_exchange_too_long"


def test_one_exchange_is_the_same_as_a_question_with_its_answer(tiny):
    ids, spans, _ = chat(tiny, CHAT, TURNS[:2], 500)
    [prompt] = render_prompts(tiny, CHAT, [TURNS[0]["content"]], [None])
    [answer] = answer_ids(tiny, CHAT, [TURNS[1]["content"]])
    assert ids == prompt.ids + answer
    assert spans == [len(prompt.ids), len(ids)]


def test_a_text_that_spells_a_special_token_is_recognised(tiny):
    assert holds_special_token(tiny, "one </s> two")
    assert not holds_special_token(tiny, "a < b > c </ s>")


def test_the_short_way_to_a_tokenizer_leads_to_the_same_one(tiny_base):
    from transformers import AutoTokenizer

    ours, auto = open_tokenizer(tiny_base), AutoTokenizer.from_pretrained(tiny_base)
    assert type(ours) is type(auto)
    assert ours.chat_template == auto.chat_template
    assert (ours.eos_token_id, ours.bos_token_id) == (auto.eos_token_id, auto.bos_token_id)
    text = "Who pays? <s>Die Nachbarn, § 5.</s>"
    assert ours(text, add_special_tokens=False) == auto(text, add_special_tokens=False)
