"""Where it comes from: data and licences, what was left out, and how to make it again."""

import re
from collections.abc import Iterator

from stages.report.contents import Contents
from stages.report.elements import Html, card, element, fold, number, share, table

COUNTS = ("documents", "rows", "tokens", "supervised")


def left_out(run: Contents) -> Html:
    """How many rows became what, and why the others did not."""
    data = run.json("metrics/data.json")
    splits = [
        [name, *(number(data[name].get(key)) for key in COUNTS)]
        for name in ("train", "validation", "test")
        if name in data
    ]
    head = ["split", "documents", "examples", "tokens", "learned or scored"]
    reasons = [
        [source, reason.replace("_", " "), number(count)]
        for source, reason, count in _reasons(data.get("dropped", {}))
    ]
    why = (
        table(["source", "left out because", "rows"], reasons, "ttn")
        if reasons
        else element("p", "Nothing was left out.")
    )
    note = (
        f"{number(data['read'])} rows read; {share(data['cut'])} of prompts cut for their length; "
        f"{share(data['leak'])} of training documents resemble evaluation documents. "
        "reports/data/rejects.jsonl names each row that was left out."
    )
    return card("What became of the data", table(head, splits, "tnnnn"), why, note=note)


def licences(run: Contents) -> Html:
    """The base model and each source, with licence and evidence."""
    model, manifest = run.params.model, run.json("models/base/manifest.json")
    where = " ".join(filter(None, (model.name, model.revision, model.file)))
    digest = manifest.get("files", {}).get("model.safetensors", {}).get("sha256", "")
    evidence = f"weights sha256 {digest[:16]}…" if digest else ""
    rows = [["base model", where, model.license, evidence]]
    rows += [[name, *about] for name, *about in _sources(run)]
    return card("Model, data, licences", table(["", "what", "licence", "evidence"], rows))


def repeat(run: Contents) -> Html:
    """The commands that make this page's numbers again."""
    commands = (
        "git clone <this repository> && cd <its folder>\n"
        "python -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt\n"
        "dvc pull          # or make it all again:\n"
        "dvc repro\n"
        "dvc metrics show\n"
        "python -m tools.compare HEAD workspace"
    )
    return card(
        "Commands",
        element("pre", commands),
        half=True,
        note="dvc.lock names every input and output of this run by hash.",
    )


def versions(run: Contents) -> Html:
    """The direct dependencies, as pinned."""
    lines = run.text("requirements.in").splitlines()
    pins = [re.match(r"([\w.\[\],-]+)==([\w.]+)", line) for line in lines]
    rows = [[pin[1], pin[2]] for pin in pins if pin]
    listed = fold(f"{len(rows)} pinned packages", table(["package", "version"], rows))
    return card("Versions", listed, half=True)


def parameters(run: Contents) -> Html:
    """params.yaml as it is."""
    return card("Parameters", fold("params.yaml", element("pre", run.text("params.yaml"))))


def cost(run: Contents) -> Html:
    """Hardware, duration and memory, which differ from run to run."""
    if run.cost is None:
        text = (
            "They differ from run to run, so this page, which is the same for the same inputs, "
            "does not have them: metrics/cost.json, dvc metrics show, or a copy of this page: "
            "python -m stages.report my-report.html --cost metrics/cost.json"
        )
        return card("Hardware and cost", element("p", text, class_="note"))
    found = [(name, value) for name, value in _flat(run.cost) if value is not None]
    rows = [[name.replace("_", " "), str(value)] for name, value in found]
    return card("Hardware and cost", table(["", ""], rows))


def _reasons(dropped: dict) -> Iterator[tuple[str, str, int]]:
    """Source, reason and count; the most frequent first."""
    found = []
    for key, value in dropped.items():
        if isinstance(value, dict):
            found += [(key, reason, count) for reason, count in value.items()]
        else:
            found.append(("", key, value))
    return iter(sorted(found, key=lambda each: (-each[2], each)))


def _sources(run: Contents) -> Iterator[tuple[str, str, str, str]]:
    data = run.params.data
    for name in data.names():
        if source := data.files.get(name):
            yield name, source.path, source.license, source.evidence
        elif source := data.urls.get(name):
            yield name, " ".join(source.files.values()), source.license, source.evidence
        elif source := data.hub.get(name):
            yield name, f"{source.name} @ {source.revision}", source.license, source.evidence
        else:
            source = data.web[name]
            licence = source.declared_license or ", ".join(source.allowed_licenses)
            what = f"crawl of {', '.join(source.start_urls)}"
            yield name, what, licence, source.evidence or "each page's own"


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value
