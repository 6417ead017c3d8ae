"""tools.generate: the answers of the evaluation, from the adapter's folder alone."""

import io
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from finetune.checkpoints import seal
from finetune.generation import answer_prompts
from finetune.model.load import add_lora, load_base, load_tokenizer
from finetune.params import load
from finetune.text.prompts import make_words, render_prompts
from tools.generate import load_assistant, main, read_questions, render

LIMITS = ("--device", "cpu", "--max-new-tokens", "6")
QUESTION = "my landlord kept the deposit and will not answer me?"


@pytest.fixture
def adapter(workspace) -> Path:
    """models/adapter, trained by chance, with its tokenizer and settings; nothing else is there."""
    params, base = load(), Path("models/base")
    model = load_base(base, params.quantization, params.compute)
    model = add_lora(model, params.lora, params.seed)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    partial, folder = Path("models/.adapter"), Path("models/adapter")
    model.save_pretrained(partial)
    load_tokenizer(base).save_pretrained(partial)
    settings = {
        "base": json.loads((base / "manifest.json").read_text(encoding="utf-8")),
        "quantization": asdict(params.quantization),
        "compute_dtype": "float32",
        "mode": "completion",
        "words": {"law": asdict(make_words(params.prompt, params.documents["law"]))},
        "max_length": 200,
    }
    (partial / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    seal(partial, folder)
    Path("params.yaml").unlink()
    base.unlink()
    return folder


def _run(monkeypatch, capsys, *arguments: str, stdin: str = "") -> str:
    monkeypatch.setattr(sys, "argv", ["generate", *LIMITS, *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    main()
    return capsys.readouterr().out


def test_the_answer_is_the_evaluations_and_needs_only_the_adapters_folder(
    adapter, monkeypatch, capsys, workspace, tiny_base, write_params
):
    printed = _run(monkeypatch, capsys, QUESTION)
    write_params(workspace)
    params, tokenizer = load(), load_tokenizer(tiny_base)
    model = load_assistant(adapter, "cpu").model
    [prompt] = render_prompts(
        tokenizer, make_words(params.prompt, params.documents["law"]), [QUESTION], [200]
    )
    settings = {"max_new_tokens": 6, "batch_tokens": 100, "progress": False}
    [answer] = answer_prompts(model, tokenizer, [prompt.ids], **settings)
    assert printed == answer.text + "\n"


def test_standard_input_is_one_question_or_one_a_line(adapter, monkeypatch, capsys):
    by_argument = [_run(monkeypatch, capsys, text) for text in (QUESTION, "can I sue?")]
    assert _run(monkeypatch, capsys, stdin=QUESTION + "\n") == by_argument[0]
    lines = _run(monkeypatch, capsys, "--lines", stdin=f"{QUESTION}\n\ncan I sue?\n")
    assert lines.splitlines() == [" ".join(text.split()) for text in by_argument]


def test_the_base_alone_answers_otherwise(adapter, monkeypatch, capsys):
    tuned = _run(monkeypatch, capsys, QUESTION)
    assert _run(monkeypatch, capsys, QUESTION, "--base-only") != tuned


def test_less_memory_gives_the_same_answer(adapter, monkeypatch, capsys):
    usual = _run(monkeypatch, capsys, QUESTION)
    assert _run(monkeypatch, capsys, QUESTION, "--low-memory") == usual


def test_a_question_that_is_too_long_is_cut_and_the_prompts_end_is_kept(adapter):
    assistant = load_assistant(adapter, "cpu")
    long = render(assistant, QUESTION * 30)
    assert len(long) <= 200
    assert long[-4:] == render(assistant, QUESTION)[-4:]


def test_a_question_that_spells_a_special_token_is_refused(adapter):
    with pytest.raises(ValueError, match="special token"):
        render(load_assistant(adapter, "cpu"), "what is </s> for?")


def test_a_causal_adapter_continues_the_text(adapter):
    assistant = load_assistant(adapter, "cpu")
    assistant.settings["mode"] = "causal"
    assert assistant.tokenizer.decode(render(assistant, QUESTION)) == QUESTION


@pytest.mark.parametrize("lines", [True, False])
def test_no_question_is_one_clear_message(monkeypatch, lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n\n"))
    with pytest.raises(ValueError, match="no question"):
        read_questions(None, lines)


def test_an_adapter_that_is_not_there_or_not_whole_is_one_clear_message(adapter):
    with pytest.raises(ValueError, match="elsewhere/checksums.json is missing: run `dvc repro`"):
        load_assistant(Path("elsewhere"), "cpu")
    shutil.copyfile("models/adapter/settings.json", "models/adapter/adapter_config.json")
    with pytest.raises(ValueError, match="adapter_config.json is not what was saved"):
        load_assistant(adapter, "cpu")
