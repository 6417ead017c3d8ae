"""Charts as SVG: those of `dvc plots show`, from the same definitions, templates and files.

dvc.yaml says which file each chart draws with which template of .dvc/plots; here the same is drawn
without a browser, so that the page needs no script for it.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# As .dvc/plots/page.html draws them; colours that must turn with the page's scheme are in page.css.
STYLE = {
    "background": None,
    # Measured here, drawn by the reader's browser: room for letters that are wider there.
    "font": "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif",
    "padding": {"left": 24, "top": 2, "right": 16, "bottom": 2},
    "view": {"stroke": None},
    "axis": {
        "domainColor": "#94a3b8",
        "tickColor": "#94a3b8",
        "gridColor": "#94a3b833",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "titlePadding": 8,
    },
    "header": {"labelFontSize": 12},
    "legend": {"orient": "top", "labelFontSize": 12, "symbolStrokeWidth": 3, "columnPadding": 18},
    "text": {"fontSize": 11},
    "range": {"category": ["#1d4ed8", "#c2410c", "#047857", "#7e22ce", "#be123c", "#a16207"]},
}
LEGIBLE = 560  # pixels; on a narrower screen a wide chart scrolls
WIDTH = 520  # of a chart that takes its container's


def read_charts(root: Path) -> list[dict[str, Any]]:
    """The charts of dvc.yaml with rows to draw, filled: title, spec and place (usermeta)."""
    plots = YAML(typ="safe").load(root / "dvc.yaml").get("plots", [])
    found = [_fill(root, about) for each in plots for about in each.values()]
    return sorted(filter(None, found), key=lambda chart: chart["place"].get("order", 99))


def draw(spec: dict[str, Any]) -> str:
    """A filled template as SVG that scales with its width. The text font is the page's."""
    import vl_convert

    spec = {name: value for name, value in spec.items() if name not in ("title", "usermeta")}
    if spec.get("width") == "container":
        spec["width"] = WIDTH
    svg = vl_convert.vegalite_to_svg(spec, vl_version="5.20", config=STYLE)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    size = f"max-width:{float(width):.0f}px;min-width:{min(float(width), LEGIBLE):.0f}px"
    head = f'<svg viewBox="0 0 {width} {height}" style="{size}" role="img"'
    return re.sub(r"<svg[^>]*", lambda _: head, svg, count=1)


def _fill(root: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """None where no file has a row, or the template is a table, which the page has of its own."""
    from dvc_render import VegaRenderer

    rows = [row for path in about["y"] for row in _read(root / path)]
    if not rows:
        return None
    labels = {key: about[key] for key in ("title", "x_label", "y_label") if key in about}
    where = {"template": about["template"], "template_dir": str(root / ".dvc/plots")}
    y = next(iter(about["y"].values()))
    renderer = VegaRenderer(rows, about["title"], x=about["x"], y=y, **labels, **where)
    spec = renderer.get_filled_template()
    place = spec.get("usermeta", {})
    if "table" in place:
        return None
    for part in (spec, spec.get("spec", {})):  # one revision: a legend that names it says nothing
        color = part.get("encoding", {}).get("color", {})
        if color.get("field") == "rev":
            color["legend"] = None
    return {"title": about["title"], "spec": spec, "place": place}


def _read(path: Path) -> list[dict[str, Any]]:
    """A plot's rows as DVC gives them to a template: with their file's name and revision."""
    text = path.read_text(encoding="utf-8")
    rows = (
        json.loads(text)
        if path.suffix == ".json"
        else list(csv.DictReader(text.splitlines(), delimiter="\t"))
    )
    return [{**row, "filename": str(path), "rev": "workspace"} for row in rows]
