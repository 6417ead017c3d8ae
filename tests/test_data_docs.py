"""What docs/data.md shows is what the schema takes."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from finetune import params

TEXT = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
BLOCKS = [
    YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(data:.*?)```", TEXT, re.S)
]
KINDS = {"files": params.Files, "urls": params.Urls, "hub": params.Hub, "web": params.Web}
SOURCES = [
    (kind, source)
    for block in BLOCKS
    for kind, sources in block["data"].items()
    for source in sources.values()
]


def test_every_kind_of_source_has_an_example():
    assert {kind for kind, _ in SOURCES} == KINDS.keys()


@pytest.mark.parametrize(("kind", "source"), SOURCES)
def test_an_example_has_exactly_the_keys_of_its_kind(kind, source):
    TypeAdapter(KINDS[kind]).validate_python(source, strict=False)
