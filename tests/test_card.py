"""The adapter's card: front matter that the hub can read, whatever params.yaml says."""

import pytest
from huggingface_hub import ModelCard

from finetune.params import load
from stages.train.card import write_card
from tests.conftest import ROOT

METRICS = {"global_step": 8, "best_step": 6, "epochs": 3.2, "tokens": 4000}
METRICS |= {"eval_loss_first": 6.1, "eval_loss": 5.9}


def _card(continued: dict | None = None, **model: str) -> ModelCard:
    manifest = {"model": {"source": "hub", "name": "a/b", "revision": "f" * 40, "license": "mit"}}
    manifest["model"] |= model
    run = {"metrics": METRICS, "continued": continued}
    return ModelCard(write_card(load(ROOT / "presets/law-sample.yaml"), manifest, run))


@pytest.mark.parametrize(
    ("license", "shown", "name"),
    [
        ("Apache-2.0", "apache-2.0", None),
        ("llama3.1", "llama3.1", None),
        ("Llama 3.1: Community (custom)", "other", "Llama 3.1: Community (custom)"),
        ("see #3: 'ours' \"only\"", "other", "see #3: 'ours' \"only\""),
        ("proprietary", "other", "proprietary"),
        ("Apache-2.0 OR MIT", "other", "Apache-2.0 OR MIT"),
        ("yes", "other", "yes"),
    ],
)
def test_any_licence_can_be_read_again(license, shown, name):
    data = _card(license=license).data
    assert (data.license, data.license_name) == (shown, name)


def test_a_base_of_the_hub_is_named_and_no_other():
    assert _card().data.base_model == "a/b"
    assert _card(source="folder", name="mine: 7B").data.base_model is None


def test_what_was_different_where_the_run_went_on_is_named():
    changes = {"train.max_steps": {"from": 8, "to": 16}, "code.a.py": {"from": "0", "to": "1"}}
    continued = {"run": "0123", "checkpoint": "step-8", "changes": changes}
    text = _card(continued).text
    assert "step-8 of run 0123; different: train.max_steps 8 -> 16, code |" in text
    assert "continued" not in _card().text
