"""The page: it stands alone, escapes what it shows, draws in a browser; a failed gate keeps it."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stages.evaluate.predictions import Prediction
from stages.report.elements import Html, element, escape
from stages.report.samples import _sample, mark
from tests.attacks import ATTACKS
from tests.repository import Repository, stages

pytestmark = pytest.mark.slow
ROW = Prediction(
    id="1", source="law", question="<script>alert(1)</script>?", reference="Can a tenant leave",
    answer="Can <b>a tenant</b> stay", loss=2.0, tokens=4, length=5, ended=True,
    scores={"rougeL": 0.5}, trivial={"rougeL": 0.1},
)  # fmt: skip
# Unclosed by rule.
VOID = {"meta", "link", "input", "br", "path", "rect", "line", "circle", "image", "stop"}


class Tags(HTMLParser):
    """Which tags are open where the document ends or closes the wrong one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_text_is_escaped_once_and_html_not_again():
    made = element("dt", "a < b") + element("dd", "c & d")
    assert escape(made) == "<dt>a &lt; b</dt><dd>c &amp; d</dd>"
    assert isinstance(made + "<", Html) and (made + "<").endswith("&lt;")


def test_a_question_cannot_write_into_the_page():
    shown = _sample(ROW, ROW)
    assert "<script>" not in shown and "<b>" not in shown and "&amp;lt;" not in shown
    assert '<dd class="tuned">Can &lt;b&gt;<mark>a tenant</mark>&lt;/b&gt; stay</dd>' in shown


def test_marked_is_what_the_reference_has_in_order_but_not_a_small_word_alone():
    marked = mark("Is a tenant bound to pay", "Why a tenant must pay")
    assert marked == "Is <mark>a tenant</mark> bound to pay"
    assert "<mark>" not in mark("it is a so", "a is")


@pytest.fixture
def page(repository) -> str:
    return (repository.folder / "reports/report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_html_that_names_no_address(page):
    tags = Tags()
    tags.feed(page)
    assert not tags.open and not tags.wrong
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    own = {each for each in addresses if not each.startswith("http://www.w3.org/")}
    assert not re.findall(r"\ssrc=|@import|url\(", page)
    assert not [each for each in own if f'href="{each}' in page]


def test_the_page_has_every_part_and_the_numbers_of_the_metrics(page, repository):
    titles = re.findall(r"<h3>([^<]*)</h3>", page)
    for title in (
        "Base and tuned on the same rows", "Questions and answers", "How they answer",
        "Loss while training", "What became of the data", "What is learned",
        "Model, data, licences", "Versions", "Parameters", "Hardware and cost",
    ):  # fmt: skip
        assert title in titles
    metrics = json.loads((repository.folder / "metrics/tuned.json").read_text(encoding="utf-8"))
    assert f"{metrics['loss']:.3f}" in page
    assert page.count("<article") == metrics["rows"]
    assert "&lt;dt&gt;" not in page and "<mark>" in page


def test_the_same_run_gives_the_same_page_and_cost_only_when_asked(page, repository):
    module = [sys.executable, "-m", "stages.report"]
    repository.run(*module, "again.html")
    assert (repository.folder / "again.html").read_text(encoding="utf-8") == page
    assert "duration s" not in page
    repository.run(*module, "cost.html", "--cost", "metrics/cost.json")
    assert "duration s" in (repository.folder / "cost.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("chromium"), reason="no headless browser on this machine")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_without_a_network_shows_it_at_two_widths_in_both_schemes(
    repository, tmp_path, width, scheme
):
    said = tmp_path / "said.html"
    # An iframe has any width; what the page's script did and where it overflows is then read.
    said.write_text(
        f'<iframe id="f" style="width:{width}px;height:900px" src="'
        f'{(repository.folder / "reports/report.html").as_uri()}"></iframe><script>'
        'f.onload = () => { const d = f.contentDocument; document.title = ["shown:" + '
        'd.querySelector("#shown").textContent, "overflow:" + (d.documentElement.scrollWidth > '
        f'{width}), "desk:" + f.contentWindow.getComputedStyle(d.body).backgroundColor].join() '
        "}; </script>",
        encoding="utf-8",
    )
    document, console = _browse(said, scheme)
    metrics = json.loads((repository.folder / "metrics/tuned.json").read_text(encoding="utf-8"))
    desk = {"light": "rgb(246, 248, 251)", "dark": "rgb(12, 17, 27)"}[scheme]
    assert f"<title>shown:{metrics['rows']} shown,overflow:false,desk:{desk}</title>" in document
    assert not console


@pytest.mark.extended
@pytest.mark.skipif(not shutil.which("chromium"), reason="no headless browser on this machine")
def test_a_row_with_a_script_in_it_runs_in_no_page_of_the_run(clean: Repository, tmp_path):
    path = clean.folder / "data/sample/law.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        attack = ATTACKS[number % len(ATTACKS)]
        row |= {"title": f"{row['title']} {attack}", "body": f"{attack} {row['body']}"}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    clean.run("dvc", "repro")
    clean.run("dvc", "plots", "show")
    for name in ("reports/report.html", "reports/data/examples.html", "dvc_plots/index.html"):
        page = Path(shutil.copy(clean.folder / name, tmp_path))
        document, _ = _browse(page, "light")
        document = document.replace("\u200b", "")  # which follows each < in the samples
        assert "<title>7</title>" not in document, name
        assert any(html.escape(text, quote=False) in document for text in ATTACKS), name


def _browse(page: Path, scheme: str) -> tuple[str, list[str]]:
    """The document after its scripts, and the lines of the console; no host name is known."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--disable-quic", "--no-first-run", "--disable-background-networking"]
    command += ["--disable-component-update", "--disable-sync", "--allow-file-access-from-files"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000"]
    command += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
    command += ["--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run(
        [*command, page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=90,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.extended
def test_a_failing_gate_fails_the_run_and_keeps_page_and_metrics(clean: Repository):
    clean.set("evaluate.gate", ["loss < 0", "rows > 0"])
    command = ["dvc", "exp", "run", "-n", "strict"]
    done = subprocess.run(
        command,
        cwd=clean.folder,
        env=clean.environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode != 0
    assert "FAILED  loss < 0" in done.stdout + done.stderr
    assert "passed  rows > 0" in done.stdout + done.stderr
    page = (clean.folder / "reports/report.html").read_text(encoding="utf-8")
    assert "1 of 2 conditions" in page
    assert '"loss"' in clean.run("dvc", "metrics", "show", "--json")
    clean.run("dvc", "exp", "save", "-f", "-n", "kept")
    assert "kept" in clean.run("dvc", "exp", "show", "--csv")


def test_a_gate_that_holds_runs_the_page_and_the_gate_alone(clean: Repository):
    clean.set("evaluate.gate", ["rows > 0"])
    assert stages(clean.run("dvc", "repro")) == {"report", "gate"}
