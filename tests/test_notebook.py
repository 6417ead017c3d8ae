"""The notebook runs from top to bottom in a kernel of its own, and is committed without outputs."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from stages.train.curves import write_curves
from tests.repository import ROOT
from tests.test_export import adapter  # noqa: F401  (a fixture)

NOTEBOOK = ROOT / "notebooks/inference.ipynb"


@pytest.fixture
def executed(adapter, workspace, monkeypatch) -> nbformat.NotebookNode:  # noqa: F811
    """The notebook after a run beside an adapter of a tiny model."""
    shutil.copy(ROOT / "dvc.yaml", workspace)
    shutil.copytree(ROOT / ".dvc/plots", workspace / ".dvc/plots")
    logged = {"loss": 4.0, "eval_loss": 4.1, "grad_norm": 1.0, "learning_rate": 0.01}
    write_curves(Path("reports/train"), [{"step": step, **logged} for step in (1, 2)])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(workspace / "ipython"))
    for name in ("evaluate/compare", "evaluate/parts", "evaluate/confusion", "evaluate/samples"):
        (workspace / f"reports/{name}.json").parent.mkdir(parents=True, exist_ok=True)
        (workspace / f"reports/{name}.json").write_text("[]", encoding="utf-8")
    for name in ("data/lengths", "data/sources"):
        (workspace / f"reports/{name}.tsv").parent.mkdir(parents=True, exist_ok=True)
        (workspace / f"reports/{name}.tsv").write_text("", encoding="utf-8")
    book = nbformat.read(NOTEBOOK, as_version=4)
    folder = {"metadata": {"path": os.fspath(workspace)}}
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # no port, as with tcp
    return NotebookClient(book, km=kernel, timeout=120, resources=folder).execute()


def shown(book: nbformat.NotebookNode) -> list[str]:
    """What its cells show, HTML or text."""
    outputs = [out for cell in book.cells if cell.cell_type == "code" for out in cell.outputs]
    data = [out.get("data", {"text/plain": out.get("text", "")}) for out in outputs]
    return [each.get("text/html", each["text/plain"]) for each in data]


def test_it_compares_base_and_tuned_answers_a_question_and_draws_the_curves(executed):
    texts = shown(executed)
    [table] = [text for text in texts if "<table>" in text]
    assert table.count("<tr>") == 4 and '<th scope="col">tuned</th>' in table
    rows = [row.split("</td>") for row in table.split("<tr>")[2:]]
    assert any(base != tuned for *_, base, tuned, _ in rows)
    [loss] = [text for text in texts if "Loss while training" in text]
    assert "<svg" in loss


def test_it_is_short_and_committed_without_outputs():
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len(code) <= 5 and "widgets" not in book.metadata
