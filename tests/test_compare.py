"""Two runs are compared on the rows that both have, from what DVC has cached."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def compare(repository, *options: str) -> subprocess.CompletedProcess:
    """`python -m tools.compare` in the repository."""
    return subprocess.run(
        [sys.executable, "-m", "tools.compare", *options],
        cwd=repository.folder,
        env=repository.environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def experiments(repository):
    """The repository with two experiments beside main; the second trains nothing."""
    for name, change in (("r3", "lora.r=3"), ("last", "evaluate.checkpoint=last")):
        repository.run("dvc", "exp", "run", "-n", name, "-S", change)
        repository.run("git", "checkout", "-q", "--force", ".")
        repository.run("dvc", "checkout", "-q", "--force")
    return repository


def test_two_runs_get_a_table_a_verdict_and_a_page(experiments, tmp_path):
    page = tmp_path / "page.html"
    done = compare(experiments, "main", "r3", "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "r3 - main" in done.stdout and "95 % interval" in done.stdout
    assert any(word in done.stdout for word in ("better than", "worse than", "Not enough evidence"))
    assert "http" not in page.read_text(encoding="utf-8").replace("http://www.w3.org", "")
    [found] = json.loads(compare(experiments, "main", "r3", "--json").stdout)
    assert found["rows"] > 0 and found["changes"]["loss"]["interval"]["value"] != 0


def test_a_run_does_not_differ_from_itself(experiments):
    [found] = json.loads(compare(experiments, "main", "main", "--json").stdout)
    assert found["verdict"] == "not enough evidence"
    assert {each["interval"]["value"] for each in found["changes"].values()} == {0.0}


def test_several_runs_get_a_ranking_with_corrected_p_values(experiments):
    done = compare(experiments, "main", "r3", "last")
    assert "p corrected for 2 runs" in done.stdout and "Ranked by" in done.stdout


def test_a_name_that_is_no_run_lists_those_that_are(experiments):
    done = compare(experiments, "main", "r77")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "r77 is no commit, branch, tag or experiment; experiments: last, r3" in done.stderr


def test_another_prompt_is_refused_unless_told(experiments):
    instruction = "documents.law.instruction=Name it."
    experiments.run("dvc", "exp", "run", "-n", "words", "-S", instruction)
    experiments.run("git", "checkout", "-q", "--force", ".")
    done = compare(experiments, "main", "words")
    assert done.returncode == 1 and "the prompt differs in" in done.stderr
    assert compare(experiments, "main", "words", "--anyway").returncode == 0
