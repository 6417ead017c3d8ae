"""Golden curves: the first losses of the committed run; two curves are compared step by step."""

import sys
from pathlib import Path

import pytest

from finetune.params import load
from tests.repository import ROOT
from tools.curves import CURVE, TOLERANCE, differences, main, read_curve

GOLDEN = ROOT / "tests/golden"


def test_the_run_of_this_checkout_begins_with_the_golden_losses(monkeypatch):
    """In .ci/run this follows `dvc repro`; elsewhere there may be no run yet."""
    monkeypatch.chdir(ROOT)
    golden = GOLDEN / f"{load().name}.tsv"
    if not golden.exists() or not Path(CURVE).exists():
        pytest.skip("no run here that has a golden curve: dvc repro")
    found = differences(read_curve(str(golden)), read_curve("workspace"))
    # The golden losses are of one CPU; another one sums in another order.
    assert len(found) == 10 and max(found.values()) <= 10 * TOLERANCE


@pytest.fixture
def curves(tmp_path):
    def write(name: str, losses: list[float]) -> str:
        rows = [f"{step}\t{loss}" for step, loss in enumerate(losses, 1)]
        (tmp_path / name).write_text("\n".join(["step\tloss", *rows]), encoding="utf-8")
        return str(tmp_path / name)

    return write


def compare(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["curves", *words])
    try:
        main()
    except SystemExit as end:
        assert "error: more than" in str(end.code)
        return 1
    return 0


def test_curves_that_differ_end_with_1_and_name_the_step(curves, monkeypatch, capsys):
    first, second = curves("a.tsv", [4.0, 3.0, 2.0]), curves("b.tsv", [4.0, 3.0, 2.5, 1.0])
    assert compare(monkeypatch, first, second, "--steps", "2") == 0
    assert compare(monkeypatch, first, second) == 1
    assert "most different is step 3: 2.000000 and 2.500000" in capsys.readouterr().out
    assert compare(monkeypatch, first, second, "--tolerance", "0.6") == 0


def test_a_curve_that_is_none_is_one_clear_error(curves, tmp_path):
    with pytest.raises(ValueError, match="nowhere.tsv is not there"):
        read_curve("nowhere.tsv")
    with pytest.raises(ValueError, match="has no step"):
        read_curve(curves("empty.tsv", []))
    (tmp_path / "other.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no columns step and loss"):
        read_curve(str(tmp_path / "other.tsv"))
