"""Passes of a step: what memory does not hold is cut smaller, with the same examples and result."""

import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from finetune import params
from finetune.captured import NotCapturable
from finetune.model.load import add_lora
from finetune.model.memory import recompute_layers
from stages.train import __main__ as stage
from stages.train import training
from stages.train.steps import Ahead
from tests import sessions
from tests.conftest import ROOT, SIZES

SMALL = 250  # tokens; half of the run's budget fits


@pytest.fixture
def run_stage(workspace, write_params, monkeypatch):
    """A function that runs the train stage here and returns its history: loss by step."""

    def run(**changes: object) -> dict[int, float]:
        shutil.rmtree(workspace / "models" / "resume", ignore_errors=True)
        changes = {"train__max_steps": 4, "train__micro_batch_tokens": 400} | changes
        write_params(workspace, **changes)
        monkeypatch.setattr(stage, "verify", lambda *_: None)
        monkeypatch.setattr("sys.argv", ["train", *sessions.COMMAND])
        stage.main()
        return sessions.read_losses(workspace)

    return run


def break_above(monkeypatch, tokens: int, after: int = 0) -> list[int]:
    """Let passes over more than `tokens` run out of memory, from call `after` on."""
    real, seen = training.token_nll, []

    def limited(model, batch):
        seen.append(batch.tokens)
        if batch.tokens > tokens and len(seen) > after:
            raise torch.OutOfMemoryError("injected")
        return real(model, batch)

    monkeypatch.setattr(training, "token_nll", limited)
    return seen


def test_a_probe_that_runs_out_of_memory_cuts_all_steps_smaller(run_stage, monkeypatch, caplog):
    expected = run_stage()
    seen = break_above(monkeypatch, SMALL)
    caplog.set_level("INFO")
    found = run_stage(train__memory="auto")
    assert found == pytest.approx(expected, rel=1e-5)
    assert "memory: out of memory at 400 tokens" in caplog.text
    refused = [number for number, tokens in enumerate(seen) if tokens > SMALL]
    assert len(refused) == 2  # the probes at 400 tokens, kept and recomputed


def test_a_step_that_runs_out_of_memory_is_cut_smaller_and_made_again(
    run_stage, monkeypatch, caplog
):
    expected = run_stage()
    break_above(monkeypatch, SMALL, after=5)
    found = run_stage(train__memory="auto")
    assert found == pytest.approx(expected, rel=1e-5)
    assert "going on at 200 tokens, recomputed" in caplog.text


def test_with_fixed_memory_the_error_names_the_keys(run_stage, monkeypatch):
    break_above(monkeypatch, SMALL)
    with pytest.raises(ValueError, match=r"out of memory at 400 tokens.*train\.memory to auto"):
        run_stage()


def test_where_not_even_one_example_fits_the_error_says_what_to_do(run_stage, monkeypatch):
    break_above(monkeypatch, 10)
    with pytest.raises(ValueError, match="does not hold a step even at .*, recomputed"):
        run_stage(train__memory="auto")


def test_passes_that_cannot_be_captured_are_launched(run_stage, monkeypatch, caplog):
    class Refusing:
        def __init__(self, *_):
            pass

        def begin_step(self):
            pass

        def __call__(self, batch, scale):
            raise NotCapturable("called a synchronizing operation")

    expected = run_stage()
    monkeypatch.setattr(training, "_captures_pay", lambda *_: True)
    monkeypatch.setattr(training, "start_compiler", lambda: None)
    monkeypatch.setattr(training, "compile_layers", lambda model: None)
    monkeypatch.setattr(params, "contradictions", lambda params: [])  # compiled on a CPU
    monkeypatch.setattr(training, "Graphs", Refusing)
    caplog.set_level("INFO")
    assert run_stage(train__compile=True) == pytest.approx(expected, rel=1e-5)
    assert caplog.text.count("not captured: called a synchronizing operation") == 1


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recomputing_asks_the_host_only_where_something_is_dropped(dropout):
    """A captured pass cannot ask it."""
    base = AutoModelForCausalLM.from_config(MistralConfig(**SIZES))
    lora = replace(params.load(ROOT / "params.yaml").lora, dropout=dropout)
    assert recompute_layers(add_lora(base, lora, seed=0)) == bool(dropout)


def test_steps_made_ahead_are_the_same_in_any_order_of_asking():
    class Numbers(list):
        pass

    ahead = Ahead(Numbers(range(5)), pin=False)
    assert [ahead[0], ahead[1], ahead[3], ahead[3], ahead[4]] == [0, 1, 3, 3, 4]
    ahead.forget()
    assert ahead[2] == 2
