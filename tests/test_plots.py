"""The dashboards: every template draws, one revision or several, and the page needs no network."""

import hashlib
import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest
import vl_convert
from dvc_render import VegaRenderer
from dvc_render.html import HTML
from ruamel.yaml import YAML

from tests.attacks import ATTACKS
from tests.conftest import ROOT

TEMPLATES = ROOT / ".dvc" / "plots"
PAGE = (TEMPLATES / "page.html").read_text(encoding="utf-8")
LIBRARY = re.compile(r'<script data-package="([^"]+)">(.*?)</script>', re.DOTALL)
# What npm publishes as build/*.min.js, less the line that names a source map.
LIBRARIES = {
    "vega@5.33.1": "135831f62920743d4467bec0df2d78eedd16fa3444077419f1dfc9aa0d55e6da",
    "vega-lite@5.23.0": "9525bc3368d62c580e8fcbf5db63c4a95c04052fe32ced063817c677cc98801c",
    "vega-embed@6.29.0": "16512fd17119051ee3f859467e174fe1503ff86c0a4743aaf8b7c10da3dd83e0",
}
CURVES = [
    {"step": "0", "loss": "4.5", "filename": "eval/loss.tsv"},
    {"step": "10", "loss": "3.25", "filename": "eval/loss.tsv"},
    {"step": "1", "loss": "4.4", "filename": "train/loss.tsv"},
    {"step": "10", "loss": "3.1", "filename": "train/loss.tsv"},
]
BARS = [
    {"metric": "loss", "model": "base", "value": 4.4},
    {"metric": "loss", "model": "tuned", "value": 2.7},
    {"metric": "ROUGE-L", "model": "base", "value": 0.11},
    {"metric": "ROUGE-L", "model": "tuned", "value": 0.42},
    {"metric": "ROUGE-L", "model": "trivial answer", "value": 0.1},
]
LENGTHS = [
    {"tokens": str(15 * (n + 1)), "rows": str(n), "split": split}
    for split in ("train", "validation", "test")
    for n in range(5)
]
SHARES = [
    {"source": source, "share": share, "kind": kind}
    for source, share in (("recipes", "0.43"), ("articles", "0.18"))
    for kind in ("target", "achieved")
]
SAMPLES = [{"question": "q?", "reference": "r", "base": "answer one", "tuned": "answer two"}]
PARTS = [
    {"by": "source", "part": part, "rows": 40, "metric": metric, "difference": change, "low": low,
     "high": None if low is None else 2 * change - low}
    for metric in ("loss", "ROUGE-L")
    for part, change, low in (("law", -0.5, -0.7), ("food", 0.1, None))
]  # fmt: skip
CONFUSION = [
    {"reference": "spam", "answer": "spam", "rows": 31},
    {"reference": "spam", "answer": "other", "rows": 4},
    {"reference": "ham", "answer": "ham", "rows": 27},
]
# Template -> its rows, x, y, and texts that the drawing must hold.
DRAWN = {
    "loss": (CURVES, "step", "loss", ["evaluation", "training", "3.250"]),
    "curve": (CURVES, "step", "loss", ["the step", "the loss"]),
    "compare": (BARS, "value", "metric", ["base", "tuned", "trivial answer", "4.400", "0.420"]),
    "lengths": (LENGTHS, "tokens", "rows", ["train", "validation", "test", "the tokens"]),
    "shares": (SHARES, "share", "source", ["recipes", "43.0%", "target", "achieved"]),
    "parts": (PARTS, "difference", "part", ["law (40)", "food (40)", "loss (left is better)"]),
    "confusion": (CONFUSION, "answer", "reference", ["spam", "ham", "other", "31", "27"]),
    "samples": (SAMPLES, "question", "tuned", ["answer one", "answer two"]),
}


def _fill(name: str, rows: list[dict], x: str, y: str) -> VegaRenderer:
    """A chart as DVC makes it: the template's anchors filled."""
    labels = {"title": "a title", "x_label": f"the {x}", "y_label": f"the {y}"}
    where = {"template": name, "template_dir": str(TEMPLATES)}
    return VegaRenderer(rows, name, x=x, y=y, **labels, **where)


def _draw(name: str, revisions: list[str], change: float = 0.0) -> tuple[dict, str]:
    """The filled template and its SVG; in later revisions the numbers are larger by `change`."""
    rows, x, y, _ = DRAWN[name]
    number = {"loss", "share", "value"}
    shifted = [
        {k: _shift(v, change * n) if k in number else v for k, v in row.items()} | {"rev": revision}
        for n, revision in enumerate(revisions)
        for row in rows
    ]
    spec = _fill(name, shifted, x, y).get_filled_template()
    drawable = spec if spec.get("width") != "container" else {**spec, "width": 400}
    return spec, vl_convert.vegalite_to_svg(drawable, vl_version="5.20")


def _shift(value: float | str, change: float) -> float | str:
    """A larger number; text, as DVC reads it from TSV files, stays text."""
    return type(value)(float(value) + change)


def _texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("name", DRAWN)
def test_a_template_draws_its_data(name):
    spec, svg = _draw(name, ["workspace"])
    assert "<DVC_METRIC_" not in json.dumps(spec)
    assert set(DRAWN[name][3]) <= set(_texts(svg))
    assert "NaN" not in svg


def test_every_template_is_tested_and_says_where_it_stands_on_the_page():
    templates = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in TEMPLATES.glob("*.json")
    }
    assert templates.keys() == DRAWN.keys()
    for spec in templates.values():
        assert spec["usermeta"]["section"] in ("Result", "Training", "Data")


@pytest.mark.parametrize("name", ["loss", "curve"])
def test_two_revisions_have_curves_of_their_own(name):
    texts = _texts(_draw(name, ["main", "exp-a"])[1])
    ends = [" · evaluation", " · training"] if name == "loss" else [""]
    assert {f"{rev}{end}" for rev in ("main", "exp-a") for end in ends} <= set(texts)


def test_bars_of_two_revisions_stand_side_by_side_and_what_agrees_is_one_bar():
    differing = _texts(_draw("compare", ["main", "exp-a"], change=0.5)[1])
    assert {"tuned · main", "tuned · exp-a", "2.700", "3.200"} <= set(differing)
    agreeing = _texts(_draw("compare", ["main", "exp-a"])[1])
    assert agreeing.count("tuned") == 2
    assert not [text for text in agreeing if "·" in text]


def test_shares_that_agree_between_revisions_are_shown_once():
    assert "recipes" in _texts(_draw("shares", ["main", "exp-a"])[1])
    assert "recipes · exp-a" in _texts(_draw("shares", ["main", "exp-a"], change=0.1)[1])


def test_the_page_names_no_address_outside_the_libraries():
    own = LIBRARY.sub("", PAGE)
    assert not re.findall(r"https?:|//cdn|\bsrc=|@import|url\(", own)
    assert "{scripts}" not in PAGE
    assert PAGE.count("{plot_divs}") == PAGE.count("{refresh_tag}") == 1


def test_the_libraries_are_the_published_ones():
    found = {
        name: hashlib.sha256(body.encode()).hexdigest() for name, body in LIBRARY.findall(PAGE)
    }
    assert found == LIBRARIES
    licence = (TEMPLATES / "LICENSE.vega").read_text(encoding="utf-8")
    assert all(name.replace("@", " ") in licence for name in LIBRARIES)


def test_dvc_writes_its_plots_into_the_page():
    assert "html_template = plots/page.html" in (ROOT / ".dvc" / "config").read_text(
        encoding="utf-8"
    )


def test_every_chart_of_the_pipeline_has_a_template():
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml").get("plots", [])
    used = {chart["template"] for each in plots for chart in each.values()}
    assert used == set(DRAWN)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no headless browser on this machine")
def test_a_browser_without_a_network_draws_every_chart(tmp_path):
    page = HTML(PAGE)
    for name, (rows, x, y, _) in DRAWN.items():
        renderer = _fill(name, [{**row, "rev": "workspace"} for row in rows], x, y)
        page.with_scripts(renderer.SCRIPTS).with_element(renderer.generate_html())
    (tmp_path / "index.html").write_text(page.embed(), encoding="utf-8")
    document = _browse(tmp_path / "index.html")
    assert document.count("<svg") >= len(DRAWN) - 1
    for _, _, _, texts in DRAWN.values():
        assert all(text in document for text in texts)
    assert '<td class="tuned">answer two</td>' in document
    assert "cdn.jsdelivr" not in document


@pytest.mark.skipif(not shutil.which("chromium"), reason="no headless browser on this machine")
def test_a_row_cannot_write_into_the_page(tmp_path):
    """DVC puts rows into the page's scripts as they are, where `</script>` ends one."""
    rows = [dict.fromkeys(SAMPLES[0], text) | {"rev": "workspace"} for text in ATTACKS]
    labels = [dict.fromkeys(("reference", "answer"), text) | {"rows": 1} for text in ATTACKS]
    charts = [_fill("samples", rows, "question", "tuned")]
    charts.append(_fill("confusion", labels, "answer", "reference"))
    shown = {}
    for name, template in {"ours": PAGE, "of DVC": None}.items():
        page = HTML(template)
        for chart in charts:
            page.with_scripts("").with_element(chart.generate_html())
        (tmp_path / f"{name}.html").write_text(page.embed(), encoding="utf-8")
        shown[name] = _browse(tmp_path / f"{name}.html")
    assert "<title>7</title>" in shown["of DVC"]  # the attack is one
    assert "<title>DVC plots</title>" in shown["ours"]
    for text in ATTACKS:
        assert f'<td class="tuned">{escape(text, quote=False)}</td>' in shown["ours"]


def _browse(page: Path) -> str:
    """The document of a page after its scripts have run, with every host name unknown."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000"]
    command += [f"--user-data-dir={page.parent / 'profile'}", page.as_uri()]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, encoding="utf-8"
    ).stdout
