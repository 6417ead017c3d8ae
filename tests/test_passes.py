"""Passes of a step: what memory does not hold is cut smaller, with the same examples and result."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from finetune.model.load import add_lora
from finetune.model.memory import Fit
from finetune.params import Lora
from stages.train import __main__ as stage
from stages.train import passes, speed, trainer
from stages.train.ahead import Ahead
from stages.train.fast.graphs import NotRecordable
from stages.train.passes import Passes
from tests import sessions
from tests.conftest import SIZES

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
    real, seen = trainer.token_nll, []

    def limited(model, batch):
        seen.append(batch.tokens)
        if batch.tokens > tokens and len(seen) > after:
            raise torch.OutOfMemoryError("injected")
        return real(model, batch)

    monkeypatch.setattr(trainer, "token_nll", limited)
    return seen


def test_a_probe_that_runs_out_of_memory_cuts_all_steps_smaller(run_stage, monkeypatch, caplog):
    expected = run_stage()
    seen = break_above(monkeypatch, SMALL)
    caplog.set_level("INFO")
    found = run_stage(train__memory="auto")
    assert found == pytest.approx(expected, rel=1e-5)
    assert "memory: out of memory at 400 tokens" in caplog.text
    refused = [number for number, tokens in enumerate(seen) if tokens > SMALL]
    assert len(refused) == 2  # the probes at 400 tokens, without and with checkpointing


def test_a_step_that_runs_out_of_memory_is_cut_smaller_and_made_again(
    run_stage, monkeypatch, caplog
):
    expected = run_stage()
    break_above(monkeypatch, SMALL, after=5)
    found = run_stage(train__memory="auto")
    assert found == pytest.approx(expected, rel=1e-5)
    assert "going on at 200 tokens with checkpointing" in caplog.text


def test_with_fixed_memory_the_error_names_the_keys(run_stage, monkeypatch):
    break_above(monkeypatch, SMALL)
    with pytest.raises(ValueError, match=r"out of memory at 400 tokens.*train\.memory to auto"):
        run_stage()


def test_where_not_even_one_example_fits_the_error_says_what_to_do(run_stage, monkeypatch):
    break_above(monkeypatch, 10)
    with pytest.raises(ValueError, match="does not hold a step even at .* with checkpointing"):
        run_stage(train__memory="auto")


def test_passes_that_cannot_be_recorded_are_launched(run_stage, monkeypatch, caplog):
    class Refusing:
        def __init__(self, *_):
            pass

        def begin_step(self):
            pass

        def __call__(self, batch, scale):
            raise NotRecordable("called a synchronizing operation")

    expected = run_stage()
    monkeypatch.setattr(speed, "record_passes", lambda plan, *_: setattr(plan, "recorded", True))
    monkeypatch.setattr(passes, "Graphs", Refusing)
    caplog.set_level("INFO")
    assert run_stage() == pytest.approx(expected, rel=1e-5)
    assert caplog.text.count("not recorded: called a synchronizing operation") == 1


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_passes_whose_activations_are_made_again_are_recorded_where_nothing_is_dropped(dropout):
    base = AutoModelForCausalLM.from_config(MistralConfig(**SIZES))
    lora = Lora(4, 8, dropout, target_modules="all-linear", bias="none", use_rslora=False)
    options = [Fit(400, False), Fit(400, True)]
    plan = SimpleNamespace(recorded=True)
    trainer = SimpleNamespace(model=add_lora(base, lora, seed=0))
    made = Passes(trainer, plan, Ahead([], pin=False), options, forward=None)
    assert plan.recorded
    made.apply(options[1])
    assert plan.recorded == (not dropout)


def test_steps_made_ahead_are_the_same_in_any_order_of_asking():
    class Numbers(list):
        pass

    ahead = Ahead(Numbers(range(5)), pin=False)
    assert [ahead[0], ahead[1], ahead[3], ahead[3], ahead[4]] == [0, 1, 3, 3, 4]
    ahead.forget()
    assert ahead[2] == 2
