"""Every text file is UTF-8, whatever the locale of the machine says."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROCESSES = {"run", "Popen", "check_output"}


def python_files() -> list[Path]:
    names = subprocess.check_output(["git", "ls-files", "*.py"], cwd=ROOT, encoding="utf-8")
    return [ROOT / name for name in names.split() if not name.startswith("data/")]


def test_every_text_file_is_opened_with_its_encoding():
    """ruff's PLW1514 sees this only where it knows that a value is a Path."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files()
        if path.is_file()
        for line in unspecified(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    "code",
    ["(a / b).read_text()", "a.write_text(b)", "a.open('w')", "open(a)", "run(a, text=True)"],
)
def test_a_text_file_without_encoding_is_found(code):
    assert list(unspecified(code)) == [1]


@pytest.mark.parametrize("code", ["a.open('rb')", "store.open(fresh=True)", "a.read_text('utf-8')"])
def test_bytes_and_other_things_that_open_are_not(code):
    assert not list(unspecified(code))


def unspecified(source: str) -> Iterator[int]:
    """The lines of calls that leave the encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        words = [a.value for a in node.args if isinstance(a, ast.Constant)]
        mode = keywords.get("mode") or next((w for w in words if w in MODES), None)
        if (
            (name == "read_text" and not node.args)
            or (name == "write_text" and len(node.args) < 2)
            or (name in ("open", "fdopen") and mode in MODES)
            or (name == "open" and isinstance(called, ast.Name) and not mode and len(words) < 2)
            or (name in PROCESSES and keywords.get("text"))
        ):
            yield node.lineno


MODES = {letter + plus for letter in "rwax" for plus in ("", "+", "t")}
