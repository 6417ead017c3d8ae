"""The gate: what a condition may say, what holds, and that nothing else is ever evaluated."""

import json
import sys
from pathlib import Path

import pytest

from finetune.params import load
from stages.gate.__main__ import main, table
from stages.gate.conditions import judge

BASE = {"loss": 4.0, "accuracy": 0.5, "interval": {"accuracy": {"low": 0.4, "high": 0.6}}}
TUNED = {
    "loss": 3.0,
    "accuracy": 0.7,
    "stop_rate": 0.9,
    "interval": {"accuracy": {"low": 0.6, "high": 0.8}, "loss": {"low": None, "high": None}},
    "diff": {"loss": -1.0, "loss_low": -1.2, "loss_high": -0.8},
    "forgotten": {"loss": 0.02, "low": 0.01, "high": 0.03},
    "trivial": {"accuracy": 0.55},
    "source": {"law": {"loss": 2.5}, "food & drink": {"loss": 3.5}},
}


def _holds(condition: str) -> bool:
    return judge([condition], TUNED, BASE)[0].holds


@pytest.mark.parametrize(
    "condition, holds",
    [
        ("loss <= 0.98 * base.loss", True),
        ("loss <= 0.5 * base.loss", False),
        ("stop_rate >= 0.95", False),
        ("forgotten.loss <= 0.05", True),
        ("forgotten.high < 0.03", False),
        ("accuracy.low > base.accuracy", True),
        ("accuracy.low > trivial.accuracy + 0.1", False),
        ("accuracy.low > base.accuracy.high", False),
        ("diff.loss.high < 0", True),
        ("diff.loss_low < -1.2", False),
        ("(base.loss - loss) / base.loss >= 0.25", True),
        ("source.law.loss < 3", True),
        ("source['food & drink'].loss < 3", False),
        ("tuned.loss == 3", True),
        ("loss != 3", False),
    ],
)
def test_a_condition_compares_metrics_of_tuned_and_base(condition, holds):
    assert _holds(condition) is holds


def test_what_has_no_interval_does_not_pass_and_says_why():
    outcome = judge(["loss.high < 5"], TUNED, BASE)[0]
    assert not outcome.holds
    assert "loss.high has no value: too few independent rows" in outcome.reason
    assert not judge(["loss / (base.loss - 4) < 1"], TUNED, BASE)[0].holds


@pytest.mark.parametrize(
    "condition, said",
    [
        ("", "no comparison"),
        ("loss", "one comparison"),
        ("1 < loss < 2", "one comparison"),
        ("loss < 2 and loss > 1", "one comparison"),
        ("loss in [1]", "one comparison"),
        ("los < 2", "no metric los; there is accuracy, diff.…"),
        ("base.forgotten.loss < 2", "no metric forgotten.loss"),
        ("diff < 2", "no metric diff"),
        ("base < 2", "no metric "),
        ("loss < 'a'", "neither a number"),
        ("loss < True", "neither a number"),
        ("loss < 1e999", "too large"),
        ("loss < 2 ** 9", "neither a number"),
        ("__import__('os').system('true') < 1", "neither a number"),
        ("open('x') < 1", "neither a number"),
        ("(lambda: 1)() < 1", "neither a number"),
        ("loss.__class__ < 1", "no metric loss.__class__"),
        ("source[loss].loss < 1", "no name of a metric"),
        ("(" * 500 + "1" + ")" * 500 + " < loss", "no comparison"),
    ],
)
def test_anything_else_is_refused_and_never_run(condition, said):
    with pytest.raises(ValueError) as error:
        judge([condition], TUNED, BASE)
    assert said in str(error.value)


def test_all_unreadable_conditions_are_named_at_once():
    with pytest.raises(ValueError, match=r"(?s)2 condition.*'a < 1'.*'b < 1'"):
        judge(["a < 1", "loss < 9", "b < 1"], TUNED, BASE)


@pytest.mark.parametrize("condition", ["loss <", "loss", "1 < loss < 2"])
def test_what_is_no_comparison_is_refused_before_anything_runs(condition, tmp_path, write_params):
    write_params(tmp_path, evaluate__gate=[condition])
    with pytest.raises(ValueError, match="evaluate.gate has .*: write one comparison"):
        load(tmp_path / "params.yaml")


def test_the_table_has_what_was_expected_and_what_was_found():
    lines = table(judge(["loss <= 0.5 * base.loss", "stop_rate >= 0.9"], TUNED, BASE)).split("\n")
    assert lines[1] == "FAILED  loss <= 0.5 * base.loss  loss = 3, base.loss = 4"
    assert lines[2] == "passed  stop_rate >= 0.9         stop_rate = 0.9"


@pytest.fixture
def gate(tmp_path, monkeypatch, write_params):
    """A function that runs the stage with these conditions."""
    monkeypatch.chdir(tmp_path)
    for name, metrics in (("tuned", TUNED), ("baseline", BASE)):
        Path(f"{name}.json").write_text(json.dumps(metrics), encoding="utf-8")

    def run(*conditions: str) -> None:
        write_params(tmp_path, evaluate__gate=list(conditions))
        monkeypatch.setattr(sys, "argv", ["gate", "tuned.json", "baseline.json"])
        main()

    return run


def test_an_empty_gate_and_one_that_holds_pass(gate, capsys):
    gate()
    assert "nothing is asked" in capsys.readouterr().out
    gate("loss < base.loss")
    assert "passed  loss < base.loss" in capsys.readouterr().out


def test_a_gate_that_does_not_hold_exits_with_its_table(gate, capsys):
    with pytest.raises(SystemExit, match="1 of 2 conditions .* do not hold. Nothing is lost"):
        gate("loss < base.loss", "stop_rate >= 0.95")
    assert "FAILED  stop_rate >= 0.95  stop_rate = 0.9" in capsys.readouterr().out
