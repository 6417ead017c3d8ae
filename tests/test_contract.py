"""dvc.yaml tells the truth: what a stage imports, reads and writes is what it declares."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from finetune.params import Params

ROOT = Path(__file__).parent.parent
SECTIONS = {field.name for field in fields(Params)}
# params.py is nobody's dependency: it holds no defaults, so every value that it passes on is
# tracked as a param already.
EXEMPT = {Path("finetune/params.py")}

RUN = "stages/run.sh"


def stages() -> dict[str, dict]:
    """Every stage of dvc.yaml, a `foreach` one by its body."""
    entries = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    return {name: {**entry, **entry.get("do", {})} for name, entry in entries.items()}


STAGES = stages()


@pytest.mark.parametrize("name", STAGES)
def test_the_code_that_a_stage_imports_is_its_dependency(name):
    assert imported(entry(name)) - EXEMPT <= {
        path for files in declared_code(name) for path in files
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_declares_no_code_that_it_does_not_import(name):
    """A folder is declared as a whole; something in it must be used."""
    used = imported(entry(name))
    assert [files for files in declared_code(name) if not files & used] == []


@pytest.mark.parametrize("name", STAGES)
def test_the_params_that_a_stage_reads_are_declared(name):
    declared = {key.partition(".")[0] for key in STAGES[name].get("params", [])}
    read = {section for path in imported(entry(name)) for section in sections_read(path)}
    assert read == declared


@pytest.mark.parametrize("name", STAGES)
def test_every_path_in_a_command_is_declared(name):
    stage = STAGES[name]
    declared = [
        next(iter(each)) if isinstance(each, dict) else each
        for kind in ("deps", "outs", "metrics")
        for each in stage.get(kind, [])
    ]
    # cost.json differs from run to run, so it is a top-level metric and no stage's out; run.sh
    # finds programs, and has no part in what they make.
    declared += ["metrics/cost.json", RUN]
    for word in stage["cmd"].split():
        if "/" in word:
            inside = [path for path in declared if path == word or path.startswith(f"{word}/")]
            assert inside, f"{name}: {word} is in the command only"


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_finds_the_programs_of_its_environment(name):
    assert STAGES[name]["cmd"].startswith(f"sh {RUN} ")


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_says_what_it_does(name):
    assert STAGES[name]["desc"].endswith(".")


def test_the_launcher_configuration_is_a_dependency_of_train():
    assert "${launch.config}" in STAGES["train"]["deps"]


def test_train_never_sees_the_test_split():
    assert not any("test" in Path(dep).parts for dep in STAGES["train"]["deps"])


def test_every_out_is_in_the_root_gitignore():
    """A failed first run takes back the entries that DVC writes itself."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for stage in STAGES.values():
        for out in stage.get("outs", []):
            path = Path(re.sub(r"/?\$\{(key|item)\}", "", out))
            names = {f"/{each}/" for each in (path, *path.parents)}
            assert names & set(ignored), f"{out} is not ignored"


def declared_code(name: str) -> list[set[Path]]:
    """Of each dependency that is code, its Python files: one, or all those of a folder."""
    code = [Path(d) for d in STAGES[name]["deps"] if d.startswith(("stages/", "finetune/"))]
    found = [[dep] if dep.suffix else (ROOT / dep).rglob("*.py") for dep in code]
    return [
        {path.relative_to(ROOT) if path.is_absolute() else path for path in paths}
        for paths in found
    ]


def entry(name: str) -> Path:
    """The file that `python -m` runs in a stage."""
    module = re.search(r"-m (stages[\w.]*)", STAGES[name]["cmd"])[1]
    path = Path(*module.split("."))
    return path / "__main__.py" if (ROOT / path).is_dir() else path.with_suffix(".py")


def imported(path: Path, seen: set[Path] | None = None) -> set[Path]:
    """A file and all local files that it imports, and they, and so on."""
    seen = set() if seen is None else seen
    if path in seen:
        return seen
    seen.add(path)
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        for module in imported_modules(node):
            local = Path(*module.split(".")).with_suffix(".py")
            if (ROOT / local).is_file():
                imported(local, seen)
    return seen


def imported_modules(node: ast.AST) -> list[str]:
    """The dotted names that an import statement may mean."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def sections_read(path: Path) -> set[str]:
    """The sections of params.yaml that a file takes from `params.` or `load().`."""
    if path in EXEMPT:
        return set()
    return {
        node.attr
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in SECTIONS and is_params(node.value)
    }


def is_params(node: ast.AST) -> bool:
    """Is this expression all of params.yaml?"""
    if isinstance(node, ast.Call):
        called = node.func
        return (getattr(called, "attr", None) or getattr(called, "id", None)) == "load"
    return isinstance(node, ast.Name) and node.id == "params"
