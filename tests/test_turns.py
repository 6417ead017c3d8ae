"""What is learnt of a conversation: the assistant's turns with their end tokens, nothing else."""

import pytest
from tokenizers import AddedToken

from finetune.text.prompts import (
    answer_ids,
    holds_special_token,
    prompt_text,
    render_chat,
    render_prompts,
)
from finetune.text.templates import Words, stop_ids, without_thinking
from tests.chat_templates import FAMILIES, make_tokenizer

BARE = Words("chat", None, "")
QUIET = Words("chat", None, "", {"enable_thinking": False})
TURNS = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "A1 is\nlong"},
    {"role": "user", "content": "SECRET USER TURN"},
    {"role": "assistant", "content": "A2"},
]
END = {
    "chatml": "<|im_end|>",
    "qwen-base": "<|im_end|>",
    "llama-3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "phi-3": "<|end|>",
    "glm-4": "<|user|>",
}
CALL = [
    {"role": "user", "content": "weather in Rome?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "look", "arguments": {"place": "Rome"}}}
        ],
    },
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "Sunny."},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def learnt(tokenizer, chat):
    """The supervised spans as text."""
    pairs = zip(chat.spans[::2], chat.spans[1::2], strict=True)
    return [tokenizer.decode(chat.ids[start:end]) for start, end in pairs]


@pytest.mark.parametrize("family", END)
def test_each_answer_is_learnt_with_its_end_token_and_no_question_is(family):
    tokenizer = make_tokenizer(family)
    [chat] = render_chat(tokenizer, BARE, TURNS, 500)
    assert learnt(tokenizer, chat) == [f"A1 is\nlong{END[family]}", f"A2{END[family]}"]
    assert chat.spans == sorted(set(chat.spans)) and chat.spans[-1] == len(chat.ids)


@pytest.mark.parametrize("family", END)
def test_one_exchange_is_a_prompt_with_its_answer(family):
    tokenizer = make_tokenizer(family)
    [chat] = render_chat(tokenizer, BARE, TURNS[:2], 500)
    [prompt] = render_prompts(tokenizer, BARE, ["hi"], [None])
    [answer] = answer_ids(tokenizer, BARE, ["A1 is\nlong"])
    assert prompt.ids + answer == chat.ids
    assert chat.spans == [len(prompt.ids), len(chat.ids)]


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_stops_where_a_learnt_answer_ends(family):
    tokenizer = make_tokenizer(family)
    [answer] = answer_ids(tokenizer, QUIET, ["A"])
    assert answer[-1] in stop_ids(tokenizer)
    assert tokenizer.eos_token_id in stop_ids(tokenizer)
    assert not set(answer[:-1]) & set(stop_ids(tokenizer))


@pytest.mark.parametrize("family", END)
def test_turns_that_do_not_fit_are_left_out_whole(family):
    tokenizer = make_tokenizer(family)
    [whole] = render_chat(tokenizer, BARE, TURNS, 500)
    [cut] = render_chat(tokenizer, BARE, TURNS, len(whole.ids) - 1)
    assert cut.cut and cut.spans == whole.spans[:2] and cut.ids == whole.ids[: whole.spans[1]]


def test_a_turn_that_is_not_to_be_learnt_is_read():
    tokenizer = make_tokenizer("chatml")
    turns = [{**each, "train": False} if each["content"] == "A2" else each for each in TURNS]
    [chat] = render_chat(tokenizer, BARE, turns, 500)
    assert learnt(tokenizer, chat) == ["A1 is\nlong<|im_end|>"]
    turns = [{**each, "train": False} if "A1" in each["content"] else each for each in TURNS]
    [chat] = render_chat(tokenizer, BARE, turns, 500)
    assert learnt(tokenizer, chat) == ["A2<|im_end|>"]
    assert "A1" in tokenizer.decode(chat.ids)
    assert render_chat(tokenizer, BARE, [TURNS[0], {**TURNS[1], "train": False}], 500) == (
        "no_turn_to_learn"
    )


def test_where_earlier_turns_are_rewritten_each_answer_is_asked_for_as_it_will_be():
    tokenizer = make_tokenizer("qwen-3")
    first, second = render_chat(tokenizer, QUIET, TURNS, 500)
    assert learnt(tokenizer, first) == ["A1 is\nlong<|im_end|>"]
    assert learnt(tokenizer, second) == ["A2<|im_end|>"]
    prompt = tokenizer.decode(first.ids[: first.spans[0]])
    assert prompt == prompt_text(tokenizer, QUIET, "hi")
    assert prompt.endswith("<think>\n\n</think>\n\n")


def test_template_arguments_reach_prompt_and_answer_alike():
    tokenizer = make_tokenizer("qwen-3")
    [quiet], [thinking] = (answer_ids(tokenizer, each, ["A"]) for each in (QUIET, BARE))
    assert tokenizer.decode(quiet) == "A<|im_end|>"
    assert tokenizer.decode(thinking) == "<think>\n\n</think>\n\nA<|im_end|>"


def test_calls_of_tools_go_through_a_template_that_knows_them():
    tokenizer = make_tokenizer("qwen-3")
    chats = render_chat(tokenizer, QUIET, CALL, 500, TOOLS)
    texts = [each for chat in chats for each in learnt(tokenizer, chat)]
    assert texts[0] == '<tool_call>\nlook {"place": "Rome"}\n</tool_call><|im_end|>'
    assert texts[-1] == "Sunny.<|im_end|>"
    assert "# Tools" in tokenizer.decode(chats[0].ids)


@pytest.mark.parametrize("family", ["chatml", "gemma", "llama-3"])
def test_calls_of_tools_are_refused_where_the_template_does_not_know_them(family):
    assert render_chat(make_tokenizer(family), BARE, CALL, 500, TOOLS) == "template_without_tools"
    assert render_chat(make_tokenizer(family), BARE, TURNS, 500, TOOLS) == "template_without_tools"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "Yes."),
        ("hm\n</think>\nYes.", "Yes."),  # where the prompt opened the thought
        ("<think>on and on", ""),
        (" Yes. ", "Yes."),
    ],
)
def test_thinking_is_no_part_of_an_answer(text, answer):
    assert without_thinking(text) == answer


def test_the_named_column_is_cut_and_the_question_stays():
    tokenizer = make_tokenizer("chatml")
    context = "the tenant paid and paid. " * 20
    question = f"Context: {context}\n\nQuestion: who paid?"
    range_ = (len("Context: "), len("Context: ") + len(context))
    [named] = render_prompts(tokenizer, BARE, [question], [150], [range_])
    assert named.cut and len(named.ids) <= 150
    assert named.question.startswith("Context: the tenant")
    assert named.question.endswith("\n\nQuestion: who paid?")
    [default] = render_prompts(tokenizer, BARE, [question], [150])
    assert default.question.endswith("\n\nQuestion: who paid?") and len(default.ids) <= 150


def test_a_last_line_is_cut_only_where_it_does_not_fit_alone():
    tokenizer = make_tokenizer("chatml")
    [rendered] = render_prompts(tokenizer, BARE, ["Short.\n" + "long words here " * 40], [100])
    assert rendered.question.startswith("long words") and len(rendered.ids) <= 100


def marked(**more):
    """A tokenizer whose template ends a turn with a token of its own, and whose EOS is another."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|stop|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    tokenizer = make_tokenizer("chatml")
    tokenizer.eos_token, tokenizer.chat_template = "<|endoftext|>", template
    tokenizer.add_tokens([AddedToken(t, **more) for t in ("<|user|>", "<|assistant|>")])
    tokenizer.add_tokens([AddedToken("<|stop|>", special=False)])
    return tokenizer


def test_an_end_of_turn_that_is_added_but_not_special_ends_an_answer():
    tokenizer = marked(special=True)
    [answer] = answer_ids(tokenizer, BARE, ["aa"])
    assert tokenizer.decode(answer) == "aa<|stop|>"
    assert tokenizer.convert_tokens_to_ids("<|stop|>") in stop_ids(tokenizer)
    assert holds_special_token(tokenizer, "a <|stop|> b")


def test_blanks_that_a_special_token_takes_in_stop_nothing():
    tokenizer = marked(special=True, rstrip=True)
    prompt = render_prompts(tokenizer, BARE, ["code?"], [None])[0].ids
    [answer] = answer_ids(tokenizer, BARE, ["    return x"])
    assert tokenizer.decode(answer) == "return x<|stop|>"
    [chat] = render_chat(
        tokenizer,
        BARE,
        [{"role": "user", "content": "code?"}, {"role": "assistant", "content": "    return x"}],
        500,
    )
    assert chat.ids == prompt + answer


THOUGHT = [TURNS[0], {**TURNS[1], "reasoning_content": "BECAUSE"}]


@pytest.mark.parametrize("family", ["chatml", "gemma", "llama-3"])
def test_reasoning_is_refused_where_the_template_does_not_write_it(family):
    tokenizer = make_tokenizer(family)
    assert render_chat(tokenizer, BARE, THOUGHT, 500) == "template_without_reasoning"


def test_reasoning_is_learnt_where_the_template_writes_it():
    tokenizer = make_tokenizer("chatml")
    written = "(m['reasoning_content'] or '') + m['content']"
    tokenizer.chat_template = tokenizer.chat_template.replace("m['content']", written)
    [chat] = render_chat(tokenizer, BARE, THOUGHT, 500)
    assert learnt(tokenizer, chat) == ["BECAUSEA1 is\nlong<|im_end|>"]
