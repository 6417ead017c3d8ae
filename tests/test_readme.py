"""README.md and the docs: what they name exists, and the commands' parts are real."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import question
from tests.preparing import run_stage

TEAMS = ("billing", "support", "sales")
ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_in_a_command_exists(page):
    modules = re.findall(
        r"python -m ((?:stages|tools|bench)[\w.]*)", page.read_text(encoding="utf-8")
    )
    assert all(importlib.util.find_spec(module) for module in modules)


def test_the_layout_lists_every_folder_of_the_tree():
    names = subprocess.check_output(
        ["git", "ls-files"], cwd=ROOT, text=True, encoding="utf-8"
    ).split()
    folders = {name.split("/")[0] for name in names if "/" in name and name[0] != "."}
    layout = README[README.index("## Layout") : README.index("## Limits")]
    assert not {folder for folder in folders if f"`{folder}/" not in layout}


def test_the_stages_are_described_as_dvc_describes_them():
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for name in set(stages) - {
        "fetch",
        "fetch_url",
        "fetch_hub",
        "fetch_web",
        "report",
        "gate",
        "cost",
    }:
        entry = stages[name].get("do", stages[name])
        assert f"| `{name}` | {entry['desc']} |" in README


def test_every_preset_is_in_the_readme():
    for preset in (ROOT / "presets").glob("*.yaml"):
        assert f"presets/{preset.name}" in README


def test_every_dvc_command_is_run_by_a_test():
    commands = set(
        re.findall(r"^ {4}dvc ((?:exp |queue |metrics |params |plots )?\w+)", README, re.M)
    )
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    missing = {c for c in commands if ", ".join(f'"{w}"' for w in c.split()) not in tests}
    assert not missing


def test_the_snippet_for_data_of_ones_own_works_as_it_is_written(
    tmp_path, monkeypatch, tiny_base, write_params
):
    """Rendered prompts hold the words of the tickets, and nothing of the legal questions."""
    from stages.fetch.files import main as fetch

    own = README[README.index("## Your own data") :]
    sections = YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", own, re.DOTALL)[1])
    write_params(tmp_path, **sections)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    lines = ["subject,body,team"]
    lines += [f"no {n},my {question(n)['body']},{TEAMS[n % 3]}" for n in range(80)]
    source = sections["data"]["files"]["tickets"]["path"]
    Path(source).parent.mkdir()
    Path(source).write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["fetch", "tickets", "data/raw/tickets"])
    fetch()
    prepared = run_stage(tiny_base)
    for text in prepared.texts("train"):
        assert "Which team is this ticket for?" in text and "title" not in text
        assert text.endswith(tuple(f"{team}</s>" for team in TEAMS))
