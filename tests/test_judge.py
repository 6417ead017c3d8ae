"""The judge over real HTTP: both orders, ties, what goes wrong, what is kept, and no key."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.evaluate.predictions import Prediction, write_predictions
from tests.judge_server import KEY, MODEL, Answer, serve
from tests.repository import ROOT
from tests.sessions import free_port
from tools.judge.__main__ import main
from tools.judge.prompt import Template, read_template, verdict

ROWS = 12
REPLIES, METRICS = Path("data/judge/tuned.jsonl"), Path("metrics/judge.json")


def longer(question: str, first: str, second: str) -> str:
    """Prefers the longer answer, whichever is first."""
    return f"One is longer.\n\nVerdict: {'A' if len(first) > len(second) else 'B'}"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A workspace with predictions: in 8 rows tuned is longer, in 3 base, in 1 they are equal."""
    for number, name in enumerate(("baseline", "tuned")):
        rows = [_row(at, name, number) for at in range(ROWS)]
        write_predictions(tmp_path / f"data/predictions/{name}.jsonl", rows)
        (tmp_path / "metrics").mkdir(exist_ok=True)
        (tmp_path / f"metrics/{name}.json").write_text("{}", encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def _row(at: int, name: str, number: int) -> Prediction:
    longer_one = 1 if at < 8 else 0
    answer = f"{name} {{first}} {at}" + " and more" * 3 * (number == longer_one)
    if at == ROWS - 1:
        answer = "the same"
    return Prediction(
        *(f"{at:03d}", "law", f"question {at}?", f"reference {at}", answer),
        *(3.0, 4, 5, True),
        group=f"g{at}",
    )


def start(folder: Path, url: str, *options: str, **environment: str) -> subprocess.Popen:
    """`python -m tools.judge` in the folder."""
    asked = {"JUDGE_BASE_URL": url, "JUDGE_API_KEY": KEY, "JUDGE_MODEL": MODEL} | environment
    return subprocess.Popen(
        [sys.executable, "-m", "tools.judge", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def judge(folder: Path, url: str, *options: str, code: int = 0, **environment: str) -> str:
    """All that it said; neither that nor any file holds the key."""
    process = start(folder, url, *options, **environment)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said and KEY not in said
    texts = [each for each in folder.rglob("*") if each.is_file()]
    assert not any(KEY in each.read_text(encoding="utf-8") for each in texts)
    return said


def metrics(folder: Path) -> dict:
    return json.loads((folder / METRICS).read_text(encoding="utf-8"))


def test_both_orders_agree_and_a_second_run_asks_nothing(folder):
    with serve(longer) as server:
        assert "22 to ask" in judge(folder, server.url, "--dry-run")
        assert not server.asked and not (folder / METRICS).exists()
        said = judge(folder, server.url)
        assert len(server.asked) == 2 * (ROWS - 1)
        assert server.asked[0]["temperature"] == 0
        first = [(folder / each).read_bytes() for each in (REPLIES, METRICS)]
        assert "0 to ask" in judge(folder, server.url)
        assert len(server.asked) == 2 * (ROWS - 1)
    assert "tuned: not enough evidence" in said
    found = metrics(folder)
    assert [found[name] for name in ("wins", "ties", "losses", "same_answer")] == [8, 1, 3, 1]
    assert found["win_rate"] == pytest.approx(8.5 / 12, abs=1e-4)
    assert 0 < found["win_rate_low"] < found["win_rate"] < found["win_rate_high"] < 1
    assert found["position_bias"] == 0 and found["prompt_tokens"] == 2200
    assert first == [(folder / each).read_bytes() for each in (REPLIES, METRICS)]
    assert sorted(each.name for each in (folder / "data/judge").iterdir()) == ["tuned.jsonl"]


def test_a_judge_that_prefers_what_comes_first_gives_ties_only(folder):
    with serve(lambda *_: "Verdict: A") as server:
        assert "not enough evidence" in judge(folder, server.url)
    found = metrics(folder)
    assert [found[name] for name in ("wins", "ties", "losses")] == [0, ROWS, 0]
    assert found["win_rate"] == 0.5 and found["position_bias"] == 1
    assert [found[name] for name in ("prefers_first", "prefers_second")] == [ROWS - 1, 0]


def test_replies_without_a_verdict_are_counted_and_their_rows_left_out(folder):
    def moody(question: str, first: str, second: str) -> str:
        number = int(question.split()[1].strip("?"))
        return f"I like {KEY} best" if number == 0 else longer(question, first, second)

    choice = {"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}
    with serve(moody, first=[Answer(200, json.dumps({"choices": [choice]}))]) as server:
        said = judge(folder, server.url, "--parallel", "1")
    found = metrics(folder)
    assert [found[name] for name in ("refused", "unparseable", "unjudged", "wins")] == [1, 1, 1, 7]
    assert "1 rows are left out: 1 replies refuse, 1 give no verdict" in said


def test_a_busy_server_is_asked_again(folder):
    busy = [Answer(429, "slower", {"Retry-After": "0"}), Answer(503, "", {"Retry-After": "0"})]
    with serve(longer, first=busy) as server:
        assert "again in 0 s" in judge(folder, server.url)
        assert len(server.asked) == 2 * (ROWS - 1) + 2
    assert metrics(folder)["wins"] == 8


def test_a_killed_run_continues_and_ends_with_the_same_file(folder):
    with serve(longer) as server:
        judge(folder, server.url)
        whole = (folder / REPLIES).read_bytes()
        (folder / REPLIES).unlink()
        server.asked.clear()
        server.wait_s = 0.1
        journal = folder / "data/judge/.tuned.jsonl.partial"
        process = start(folder, server.url, "--parallel", "1")
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            time.sleep(0.02)
        process.kill()
        process.wait()
        with journal.open("a", encoding="utf-8") as file:
            file.write('{"key": "torn off')
        kept = journal.read_bytes().count(b"\n")
        assert not (folder / REPLIES).exists()
        server.wait_s = 0
        server.asked.clear()
        judge(folder, server.url)
        assert len(server.asked) == 2 * (ROWS - 1) - kept
    assert (folder / REPLIES).read_bytes() == whole


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"JUDGE_API_KEY": "sk-another-wrong-one"}, "answers 401: check that JUDGE_API_KEY is"),
        ({"JUDGE_API_KEY": ""}, "answers 401: check JUDGE_API_KEY, for judge-1"),
        ({"JUDGE_MODEL": "gone"}, "JUDGE_MODEL is gone, which http://127.0.0.1:"),
        ({"JUDGE_MODEL": ""}, "JUDGE_MODEL is not set"),
        ({"JUDGE_API_KEY": KEY + "\u20ac"}, "JUDGE_API_KEY holds characters that no header"),
        ({"JUDGE_BASE_URL": f"http://me:{KEY}@127.0.0.1/v1"}, "JUDGE_BASE_URL is no plain"),
        ({"JUDGE_BASE_URL": f"http://127.0.0.1:{free_port()}/v1"}, "no server answers at http"),
    ],
)
def test_what_the_environment_has_wrong_is_one_line(folder, monkeypatch, capfd, environment, said):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["judge"])
    with serve(longer) as server:
        asked = {"JUDGE_BASE_URL": server.url, "JUDGE_API_KEY": KEY, "JUDGE_MODEL": MODEL}
        for name, value in (asked | environment).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code.startswith("error: ") and said in ended.value.code
    assert "\n" not in ended.value.code
    everything = ended.value.code + "".join(capfd.readouterr())
    assert "sk-" not in everything and not (folder / METRICS).exists()


def test_what_is_no_completion_and_what_a_server_refuses_are_one_line(folder):
    refusal = json.dumps({"error": {"message": f"temperature\nmust be 1, {KEY}"}})
    with serve(longer, first=[Answer(200, "<html>Welcome</html>"), Answer(400, refusal)]) as server:
        assert "no chat completion but '<html>" in judge(folder, server.url, code=1)
        said = judge(folder, server.url, code=1)
        assert "answers 400: temperature must be 1, ***; --request changes what is sent" in said
        judge(folder, server.url, "--request", '{"temperature": null, "seed": 7}')
        assert "temperature" not in server.asked[-1] and server.asked[-1]["seed"] == 7


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Verdict: A\nNo: better read again.\n**Verdict: B**", "b"),
        ("<think>Verdict: A</think>\nverdict: Tie.", "tie"),
        ("b", "b"),
        ("A is better than B", None),
        ("Verdict: A or B", None),
        ("", None),
    ],
)
def test_the_last_verdict_counts(reply, said):
    assert verdict(reply) == said


def test_braces_of_an_answer_are_no_fields_and_a_prompt_without_one_is_refused(tmp_path):
    template = Template("{question}|{first}|{second}")
    assert template.render(question="{first}", reference="", first="{x}", second="b") == (
        "{first}|{x}|b"
    )
    (tmp_path / "prompt.md").write_text("{question} {first}", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks {second}"):
        read_template(tmp_path / "prompt.md")
