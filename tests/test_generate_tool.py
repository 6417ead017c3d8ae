"""tools.generate: the answers of the evaluation, from the adapter's folder alone."""

import io
import json
import logging
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from finetune.checkpoints import seal
from finetune.generation import answer_prompts
from finetune.model.load import load_tokenizer
from finetune.params import load
from finetune.text.prompts import make_words, render_prompts
from finetune.text.templates import Words, apply_template
from tests.repository import ROOT
from tools.assistant import answer_all, find_checkpoint, load_assistant, render, render_turns
from tools.decoding import Sampling, Stream, stripped
from tools.generate import main, read_questions

LIMITS = ("--device", "cpu", "--max-new-tokens", "6")
QUESTION = "my landlord kept the deposit and will not answer me?"
OTHER = "can I sue?"


@pytest.fixture
def adapter(tmp_path, monkeypatch, tiny_adapter) -> Path:
    """models/adapter in a folder where nothing else is."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_adapter, "models/adapter")
    return Path("models/adapter")


@pytest.fixture(scope="module")
def assistant(tiny_adapter):
    return load_assistant(tiny_adapter, "cpu")


@pytest.fixture
def ask(monkeypatch, capsys):
    """A function that runs the command; what it printed."""

    def run(*arguments: str, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "argv", ["generate", *LIMITS, *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        main()
        return capsys.readouterr().out

    return run


def write_lines(path: str, *rows: object) -> None:
    lines = [each if isinstance(each, str) else json.dumps(each) for each in rows]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_answer_is_the_evaluations_and_needs_only_the_adapters_folder(
    adapter, assistant, ask, tmp_path, tiny_base, write_params
):
    printed = ask(QUESTION)
    write_params(tmp_path)
    params, tokenizer = load(), load_tokenizer(tiny_base)
    words = make_words(params.prompt, params.documents["law"])
    [prompt] = render_prompts(tokenizer, words, [QUESTION], [200])
    settings = {"max_new_tokens": 6, "batch_tokens": 100, "progress": False}
    [answer] = answer_prompts(assistant.model, tokenizer, [prompt.ids], **settings)
    assert printed == answer.text + "\n"


def test_standard_input_is_one_question_or_one_a_line(adapter, ask):
    by_argument = [ask(text) for text in (QUESTION, OTHER)]
    assert ask(stdin=QUESTION + "\n") == by_argument[0]
    lines = ask("--lines", stdin=f"{QUESTION}\n\n{OTHER}\n")
    assert lines.splitlines() == [" ".join(text.split()) for text in by_argument]


def test_a_streamed_answer_is_the_same(adapter, ask):
    assert ask(QUESTION, "--stream") == ask(QUESTION)


def test_base_and_tuned_answer_side_by_side_from_one_model(adapter, ask):
    base, tuned = ask(QUESTION, "--base-only"), ask(QUESTION)
    assert base != tuned
    assert ask(QUESTION, "--base") == f"base: {base}tuned: {tuned}"


def test_less_memory_gives_the_same_answer(adapter, ask):
    assert ask(QUESTION, "--low-memory") == ask(QUESTION)


def test_every_row_of_a_file_is_kept_with_its_answers(adapter, ask):
    rows = [{"id": 7, "question": QUESTION, "tags": ["ä", None]}, {"question": OTHER}]
    write_lines("in.jsonl", rows[0], "", rows[1])
    assert ask("--file", "in.jsonl", "--out", "out.jsonl", "--base") == ""
    written = read_lines(Path("out.jsonl").read_text(encoding="utf-8"))
    answers = [row["answer"] for row in written]
    for row, before in zip(written, rows, strict=True):
        assert row.pop("answer") + "\n" == ask(before["question"])
        assert row.pop("base_answer") + "\n" == ask(before["question"], "--base-only")
        assert row == before
    write_lines("other.jsonl", {"body": OTHER})
    [printed] = read_lines(ask("--file", "other.jsonl", "--column", "body"))
    assert printed == {"body": OTHER, "answer": answers[1]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a"', "in.jsonl:3 is no JSON: "),
        ("[1]", "in.jsonl:3 is list: each line must be a JSON object"),
        ({"body": "a"}, "in.jsonl:3 has no text in 'question': it has 'body'; --column"),
        ({"question": " "}, "in.jsonl:3 has no text in 'question'"),
        ({"question": "a", "answer": "b"}, "in.jsonl:3 has 'answer' already: rename it"),
        ('{"question": "\\ud800"}', "in.jsonl:3 is no JSON: .*surrogates"),
        ('{"question": "a", "x": NaN}', "in.jsonl:3 is no JSON: NaN"),
        ({"question": "what is </s> for?"}, "in.jsonl:3: the question spells a special token"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(adapter, ask, line, message):
    write_lines("in.jsonl", {"question": OTHER}, "", line)
    with pytest.raises(ValueError, match=message):
        ask("--file", "in.jsonl", "--out", "out.jsonl")
    assert not Path("out.jsonl").exists()


def test_an_out_that_cannot_be_written_is_known_before_a_model_is_loaded(
    ask, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    write_lines("in.jsonl", {"question": OTHER})
    with pytest.raises(ValueError, match="--out is none/out.jsonl: name a file in a folder"):
        ask("--file", "in.jsonl", "--out", "none/out.jsonl")
    with pytest.raises(ValueError, match="--out is in.jsonl, the file that is read"):
        ask("--file", "in.jsonl", "--out", "in.jsonl")


def test_a_conversation_remembers_what_was_said_as_training_renders_it(adapter, assistant, ask):
    printed = ask("--chat", stdin=f"{QUESTION}\n\n{OTHER}\n/new\n{OTHER}\n")
    first, second, alone = printed.splitlines()
    assert [first + "\n", alone + "\n"] == [ask(QUESTION), ask(OTHER)]
    words = Words(**assistant.settings["words"]["law"])
    turns = [("system", words.system), ("user", f"{words.instruction}\n\n{QUESTION}")]
    turns += [("assistant", first), ("user", OTHER)]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = apply_template(assistant.tokenizer, words, messages, answer_next=True)
    messages[1]["content"] = QUESTION
    prompt = render_turns(assistant, messages[1:])
    assert assistant.tokenizer.decode(prompt) == text
    [answer] = answer_all(assistant, [prompt], 6)
    assert second == answer.text


def test_a_bad_turn_of_a_pipe_is_named(adapter, ask):
    with pytest.raises(ValueError, match="turn 2: the user's turn spells a special token"):
        ask("--chat", stdin=f"{OTHER}\nwhat is </s>?\n")
    with pytest.raises(ValueError, match="turn 1: the prompt has .* tokens and the answer may"):
        ask("--chat", stdin=f"{QUESTION * 30}\n")


def test_turns_with_a_system_of_their_own_are_rendered_as_they_are(assistant):
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": OTHER}]
    plain = assistant.tokenizer.decode(render_turns(assistant, turns))
    assert plain == f"<s>system\nbe brief</s><s>user\n{OTHER}</s><s>assistant\n"


def test_a_plain_prompt_has_no_turns(assistant, monkeypatch):
    words = assistant.settings["words"]["law"] | {"template": "plain"}
    monkeypatch.setitem(assistant.settings, "words", {"law": words})
    question = {"role": "user", "content": QUESTION}
    assert render_turns(assistant, [question]) == render(assistant, QUESTION)
    with pytest.raises(ValueError, match="prompt.template plain, which has no turns"):
        render_turns(assistant, [question, {"role": "assistant", "content": "a"}, question])


def test_a_source_must_be_named_where_sources_differ_and_a_row_may_name_its_own(
    adapter, assistant, ask, monkeypatch
):
    settings = json.loads((adapter / "settings.json").read_text(encoding="utf-8"))
    words = settings["words"]["law"]
    settings["words"]["other"] = words | {"instruction": "which animal is it"}
    monkeypatch.setitem(assistant.settings, "words", settings["words"])
    with pytest.raises(ValueError, match="source is missing: name one of law, other"):
        render(assistant, QUESTION)
    partial = Path("models/.partial")
    shutil.copytree(adapter, partial)
    (partial / "checksums.json").unlink()
    (partial / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    seal(partial, adapter)
    by_option = ask(QUESTION, "--source", "other")
    assert by_option != ask(QUESTION, "--source", "law")
    write_lines("in.jsonl", {"question": QUESTION, "source": "other"})
    [row] = read_lines(ask("--file", "in.jsonl"))
    assert row["answer"] + "\n" == by_option
    write_lines("in.jsonl", {"question": QUESTION, "source": "elsewhere"})
    with pytest.raises(ValueError, match="in.jsonl:1: source is missing"):
        ask("--file", "in.jsonl")


def test_the_same_seed_draws_the_same_answer_alone_and_among_others(adapter, ask, assistant):
    drawn = ("--temperature", "1.5", "--top-k", "50", "--top-p", "0.95")
    answers = {seed: ask(QUESTION, *drawn, "--seed", seed) for seed in ("1", "2", "3")}
    assert len(set(answers.values())) > 1
    assert ask(QUESTION, *drawn, "--seed", "2", "--stream") == answers["2"]
    write_lines("in.jsonl", {"question": OTHER}, {"question": QUESTION})
    rows = read_lines(ask("--file", "in.jsonl", *drawn, "--seed", "2"))
    assert rows[1]["answer"] + "\n" == answers["2"]


def test_a_seed_that_nobody_gave_is_told_and_repeats_the_answer(adapter, ask, caplog):
    caplog.set_level(logging.INFO)
    first = ask(QUESTION, "--temperature", "2")
    [seed] = [text.split()[-1].rstrip(")") for text in caplog.messages if "--seed" in text]
    assert ask(QUESTION, "--temperature", "2", "--seed", seed) == first


def test_what_is_drawn_follows_the_distribution_and_top_k_of_one_is_greedy(assistant):
    prompt = render(assistant, QUESTION)

    def first(sampling: Sampling) -> int:
        with assistant.speaking(base=False) as model:
            return int(next(Stream(model, assistant.tokenizer, prompt, sampling, 1)._ids))

    with torch.inference_mode(), assistant.speaking(base=False) as model:
        shares = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    likely = int(shares.argmax())
    assert first(Sampling()) == likely == first(Sampling(5.0, top_k=1)) == first(Sampling(0.01))
    drawn = [first(Sampling(1.0, seed=seed)) for seed in range(60)]
    share = float(shares[likely])
    assert abs(drawn.count(likely) / 60 - share) < 4 * (share * (1 - share) / 60) ** 0.5 + 0.02


def test_stops_and_white_space_do_not_depend_on_where_the_pieces_end(assistant):
    prompt = render(assistant, QUESTION)

    def read(stops: tuple[str, ...]) -> Stream:
        return Stream(assistant.model, assistant.tokenizer, prompt, Sampling(), 12, stops)

    whole = "".join(read(()))
    assert len(whole) > 5
    stream = read((whole[3:6],))
    assert "".join(stream) == whole[: whole.find(whole[3:6])] and stream.ended
    stream = read(("never written",))
    assert "".join(stream) == whole and not stream.ended and stream.tokens == 12
    assert list(stripped(iter([" ", " a ", " ", "b", " \n"]))) == ["a", "  b"]


def test_a_checkpoint_answers_instead_of_the_best(adapter, ask):
    for step in (2, 4):
        partial = Path("models/checkpoints/.partial")
        shutil.copytree(adapter, partial)
        (partial / "checksums.json").unlink()
        (partial / "settings.json").unlink()  # a checkpoint has weights alone
        seal(partial, Path(f"models/checkpoints/step-{step}"), step=step)
    found = find_checkpoint(adapter, "last", Path("models/checkpoints"))
    assert found.name == "step-4" and ask(QUESTION, "--checkpoint", "step-2") == ask(QUESTION)
    with pytest.raises(ValueError, match="--checkpoint is 3: .* there is step-2, step-4"):
        ask(QUESTION, "--checkpoint", "3")
    (found / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="step-4/adapter_model.safetensors is not what was saved"):
        ask(QUESTION, "--checkpoint", "last")


def test_a_question_that_is_too_long_is_cut_and_the_prompts_end_is_kept(assistant):
    long = render(assistant, QUESTION * 30)
    assert len(long) <= 200
    assert long[-4:] == render(assistant, QUESTION)[-4:]


def test_a_question_that_spells_a_special_token_is_refused(assistant):
    with pytest.raises(ValueError, match="special token"):
        render(assistant, "what is </s> for?")


def test_a_causal_adapter_continues_the_text_and_has_no_turns(assistant, monkeypatch):
    monkeypatch.setitem(assistant.settings, "mode", "causal")
    assert assistant.tokenizer.decode(render(assistant, QUESTION)) == QUESTION
    with pytest.raises(ValueError, match="plain text, which has no turns"):
        render_turns(assistant, [{"role": "user", "content": QUESTION}])


@pytest.mark.parametrize("lines", [True, False])
def test_no_question_is_one_clear_message(monkeypatch, lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n\n"))
    with pytest.raises(ValueError, match="no question"):
        read_questions(None, lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["why?", "--file", "a"], "a question and --file: give one"),
        (["--out", "a"], "--out is a: it is for --file"),
        (["--lines", "--stream"], "--stream is for one question"),
        (["--chat", "--base"], "--base is for one question and --file"),
        (["why?", "--base", "--base-only"], "--base and --base-only: give one"),
        (["why?", "--top-p", "0.9"], "--top-p and --top-k need a --temperature above 0"),
        (["why?", "--temperature", "nan"], "--temperature is nan: 0 to 100"),
        (["why?", "--temperature", "1", "--top-p", "0"], "--top-p is 0.0: above 0, at most 1"),
        (["why?", "--max-new-tokens", "0"], "--max-new-tokens is 0: at least 1"),
        (["why?", "--seed", "-1"], "--seed is -1: 0 or more"),
    ],
)
def test_options_that_do_not_go_together_are_one_clear_message(ask, options, message):
    with pytest.raises(ValueError, match=message):
        ask(*options)


def test_an_adapter_that_is_not_there_or_not_whole_is_one_clear_message(adapter):
    with pytest.raises(ValueError, match="elsewhere/checksums.json is missing: run `dvc repro`"):
        load_assistant(Path("elsewhere"), "cpu")
    shutil.copyfile("models/adapter/settings.json", "models/adapter/adapter_config.json")
    with pytest.raises(ValueError, match="adapter_config.json is not what was saved"):
        load_assistant(adapter, "cpu")


@pytest.mark.parametrize("tool", ["generate", "serve"])
def test_help_comes_without_torch_in_under_a_second(tool):
    command = [sys.executable, "-X", "importtime", "-m", f"tools.{tool}", "--help"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0 and f"python -m tools.{tool}" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "peft", "bitsandbytes"}
    # Of the processor, not by the clock: it may be busy with other tests.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1


def test_the_quick_imports_leave_torch_as_it_is_and_the_same_answers(tiny_adapter):
    code = (
        "import sys, gc; from tools.quick_start import quick_imports\n"
        "with quick_imports():\n"
        "    from tools.assistant import load_assistant, answer_all, render\n"
        "import torch\n"
        "assert gc.isenabled() and torch.compile.__module__ == 'torch'\n"
        "assert 'torch._inductor.compile_fx' not in sys.modules\n"
        "found = load_assistant(__import__('pathlib').Path(sys.argv[1]), 'cpu')\n"
        "print(answer_all(found, [render(found, sys.argv[2])], 6)[0].text, end='')"
    )
    command = [sys.executable, "-c", code, str(tiny_adapter), QUESTION]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assistant = load_assistant(tiny_adapter, "cpu")
    assert done.stdout == answer_all(assistant, [render(assistant, QUESTION)], 6)[0].text
