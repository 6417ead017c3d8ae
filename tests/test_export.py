"""Every exported form answers as the adapter does, and is scored; one that does not is refused."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from finetune.params import load
from stages.export.gguf_file import check_architecture, in_order, splitter
from stages.export.scoring import check_gap
from stages.export.writing import Form
from tests import hub_server
from tools.export import main


@pytest.fixture
def adapter(workspace, tiny_adapter) -> Path:
    """models/adapter, trained by chance."""
    return Path(shutil.copytree(tiny_adapter, "models/adapter"))


def export(monkeypatch, kind: str, *options: str) -> dict:
    """What metrics/export-KIND.json says; {} where nothing is scored."""
    monkeypatch.setattr(sys, "argv", ["export", kind, *options])
    main()
    path = Path(f"metrics/export-{kind}.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def test_the_merged_model_is_plain_and_has_the_losses_of_the_adapter(adapter, monkeypatch):
    metrics = export(monkeypatch, "merged")
    assert metrics["rows"] == 8 and abs(metrics["gap"]["loss"]["value"]) < 0.02
    assert set(metrics["gap"]) == set(metrics["export"]) == {"loss", "rougeL"}
    assert metrics["same_answers"] >= 0.5  # bfloat16 turns near ties of random weights
    model = AutoModelForCausalLM.from_pretrained("models/export/merged")
    assert not getattr(model.config, "quantization_config", None)
    assert model.dtype == torch.bfloat16


def test_merging_into_the_original_weights_is_scored_too(adapter, monkeypatch):
    metrics = export(monkeypatch, "merged", "--base", "original")
    assert metrics["base"] == "original" and metrics["export"] != metrics["adapter"]


def test_the_adapter_loads_by_peft_alone_with_a_base_that_it_names(adapter, monkeypatch):
    metrics = export(monkeypatch, "adapter")
    assert abs(metrics["gap"]["loss"]["value"]) < 0.02  # on the weights that were trained on
    config = json.loads(Path("models/export/adapter/adapter_config.json").read_text("utf-8"))
    assert Path(config["base_model_name_or_path"], "config.json").exists()
    model = AutoPeftModelForCausalLM.from_pretrained("models/export/adapter")
    assert any("lora" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("kind", ["gguf", "gguf-adapter"])
def test_llama_cpp_answers_as_the_adapter_does(adapter, monkeypatch, kind):
    pytest.importorskip("xllamacpp", reason="runs llama.cpp where its package is installed")
    metrics = export(monkeypatch, kind)
    assert set(metrics["gap"]) == {"rougeL"}
    assert metrics["same_answers"] >= 0.5  # float16 turns near ties of random weights
    assert Path(f"models/export/{kind}/Modelfile").exists()


def test_an_export_that_lost_the_tuning_fails(adapter, monkeypatch):
    def spoil(model):
        state = load_file(model / "model.safetensors")
        state["model.layers.0.mlp.down_proj.weight"].zero_()
        save_file(state, model / "model.safetensors", metadata={"format": "pt"})

    original = AutoModelForCausalLM.from_pretrained

    def spoilt(folder, **options):
        if Path(folder).name == "merged":
            spoil(Path(folder))
        return original(folder, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spoilt)
    with pytest.raises(ValueError, match="more than export.max_loss_gap"):
        export(monkeypatch, "merged")


def test_gguf_of_another_architecture_is_refused_before_anything_is_merged():
    with pytest.raises(ValueError, match="GGUF is written for llama, mistral only, not for qwen3"):
        check_architecture({"model_type": "qwen3"})


def test_few_answers_that_are_the_adapters_are_told(caplog, tmp_path, write_params):
    write_params(tmp_path)
    form, params = Form("gguf", tmp_path / "gguf", tmp_path), load(tmp_path / "params.yaml")
    check_gap(form, {"gap": {}, "same_answers": 0.9}, params)
    assert not caplog.messages
    check_gap(form, {"gap": {}, "same_answers": 0.4}, params)
    assert "only 40% of the answers of" in caplog.text


def test_biases_of_query_and_key_are_reordered_as_their_weights_are():
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    for name, rows in (("q_proj", 16), ("k_proj", 8), ("v_proj", 8)):
        values = torch.arange(rows)
        weight = in_order(f"model.layers.0.self_attn.{name}.weight", values[:, None], config)
        bias = in_order(f"model.layers.0.self_attn.{name}.bias", values, config)
        assert torch.equal(weight[:, 0], bias)
        assert torch.equal(bias, values) == (name == "v_proj")


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
)


def split_by(*expressions):
    """Splits by expressions, then bytes, as Llama 3 and those after it have it."""
    splits = [{"type": "Split", "pattern": {"Regex": each}} for each in expressions]
    return {"type": "Sequence", "pretokenizers": [*splits, LEVEL | {"use_regex": False}]}


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (LEVEL, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [DIGITS, LEVEL]}, "smollm"),
        (split_by(LLAMA_3), "llama-bpe"),
        (split_by(PRETOKENIZE_REGEX), "qwen2"),
        (split_by(O200K), None),
        (split_by(r"\p{N}{1,3}", "[一-龥]+"), None),
        (LEVEL | {"use_regex": False}, None),
        (LEVEL | {"add_prefix_space": True}, None),
        ({"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, DIGITS, LEVEL]}, None),
        (
            {"type": "Sequence", "pretokenizers": [DIGITS | {"individual_digits": False}, LEVEL]},
            None,
        ),
    ],
)
def test_a_splitting_of_texts_that_llama_cpp_lacks_is_refused(tmp_path, rules, name):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": rules}), encoding="utf-8")
    if name:
        assert splitter(tmp_path) == name
        return
    with pytest.raises(ValueError, match="llama.cpp has no tokenizer that splits"):
        splitter(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    """The hub's stand-in, to which the real client pushes."""
    with hub_server.serve() as server:
        for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        yield server


def test_push_uploads_what_was_scored_and_nothing_else(adapter, monkeypatch, hub):
    with pytest.raises(ValueError, match="export/merged is not there: run .* merged. first"):
        export(monkeypatch, "push", "--to", "me/titles")
    export(monkeypatch, "merged")
    with pytest.raises(ValueError, match="HF_TOKEN is not set"):
        export(monkeypatch, "push", "--to", "me/titles")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(ValueError, match="the hub answered 401 to me/titles: HF_TOKEN must be one"):
        export(monkeypatch, "push", "--to", "me/titles")
    assert not hub.repositories
    monkeypatch.setenv("HF_TOKEN", hub.token)
    export(monkeypatch, "push", "--to", "me/titles")
    repository = hub.repositories["models", "me/titles"]
    assert repository.private
    pushed = repository.commits[repository.branches["main"]]
    for path in Path("models/export/merged").iterdir():
        assert pushed[path.name] == path.read_bytes()
    assert hub.messages[0].startswith("law-sample of commit ")


def test_push_refuses_another_adapters_what_nobody_could_load_and_what_has_lost_the_tuning(
    adapter, monkeypatch
):
    for kind in ("adapter", "merged"):
        export(monkeypatch, kind)
    with pytest.raises(ValueError, match="tiny is not on the hub .* push --form merged"):
        export(monkeypatch, "push", "--form", "adapter", "--to", "me/titles")
    sums = adapter / "checksums.json"
    sealed = sums.read_text(encoding="utf-8")
    sums.write_text(sealed.replace("{", "{ ", 1), encoding="utf-8")  # as after another training
    with pytest.raises(ValueError, match=r"merged is of another adapter than models/adapter: run"):
        export(monkeypatch, "push", "--to", "me/titles")
    sums.write_text(sealed, encoding="utf-8")
    path = Path("metrics/export-merged.json")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["gap"]["loss"]["value"] = 3.0
    path.write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(ValueError, match="gap of 3.0, above export.max_loss_gap"):
        export(monkeypatch, "push", "--to", "me/titles")
