"""The whole train stage on bases of different kinds, and with modules that are trained whole."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune.model.load import load_tokenizer
from finetune.params import Model, load
from finetune.text.tokens import TokenRows
from stages.fetch.model import write_base
from stages.train.adapter import WEIGHTS
from stages.train.verify import reload_loss
from tests import sessions
from tests.architectures import ARCHITECTURES, PADDED, write_model
from tools.export import main as export

pytestmark = pytest.mark.slow
SHORT = {"train__max_steps": 4, "train__optim": "adamw_torch", "train__logging_steps": 1}
BOTH = {"lora__modules_to_save": ["embed_tokens", "lm_head"]}
KINDS = {
    # Each by itself; Trainer keeps the states of the embedding in 32 bits, of the head in 8.
    "mistral-window": BOTH | {"train__optim": "paged_adamw_8bit"},
    "llama-tied": {"lora__modules_to_save": ["embed_tokens"]},  # one matrix
    "gemma2": {},
    "gpt2": {},
}


@pytest.fixture
def prepare(tmp_path, furnish, tiny_weights):
    """A function that furnishes a folder with a tiny base of a kind, and the tests' tokenizer."""

    def make(kind: str, name: str, **changes: object) -> Path:
        weights = tmp_path / "weights" / kind
        folder = furnish(tmp_path / name, **SHORT | changes)
        if not weights.exists():
            positions = "n_positions" if kind == "gpt2" else "max_position_embeddings"
            words = len(load_tokenizer(tiny_weights))
            write_model(kind, weights.parent, vocab_size=words, **{positions: 512})
            for each in tiny_weights.glob("*"):
                if each.name.startswith(("tokenizer", "chat_template")):
                    shutil.copy(each, weights)
        (folder / "models/base").unlink()
        model = YAML(typ="safe").load(folder / "params.yaml")["model"] | {"folder": str(weights)}
        write_base(Model(**model), weights, folder / "models/base")
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_base_trains_resumes_to_the_same_bytes_and_loads_as_trained(
    prepare, kind, monkeypatch
):
    changes = KINDS[kind]
    whole, killed = (prepare(kind, name, **changes) for name in ("whole", "killed"))
    code, log = sessions.train(whole)
    assert code == 0, log
    assert ("padded batches" in log) == (ARCHITECTURES[kind][1] == PADDED)
    assert sessions.train(killed, at="SIGKILL write_adapter 2")[0] == -9
    code, log = sessions.train(killed)
    assert code == 0 and "continuing from" in log
    assert sessions.read_outs(killed) == sessions.read_outs(whole)
    monkeypatch.chdir(whole)
    rows = TokenRows(Path("data/prepared/train"))
    assert rows.lengths.min() > ARCHITECTURES[kind][0].get("sliding_window", 0)
    history = sessions.read_history(whole)
    best = min((e for e in history if "eval_loss" in e), key=lambda e: e["eval_loss"])
    assert best["eval_loss"] < history[0]["eval_loss"]
    places = (Path("models/base"), Path("data/prepared"), Path("models/adapter"))
    found = reload_loss(load(), *places, best["eval_sample_tokens"])
    assert found == pytest.approx(best["eval_sample_loss"], rel=1e-5)
    if changes:
        _check_whole(kind, monkeypatch)


def _check_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was trained whole is in the adapter, its count, its card, and in what is exported."""
    saved = load_file(Path("models/adapter") / WEIGHTS)
    ends = {name: tensor for name, tensor in saved.items() if ".lora_" not in name}
    prefix = "base_model.model."
    assert set(ends) == {f"{prefix}model.embed_tokens.weight", f"{prefix}lm_head.weight"}
    embedding, head = ends[f"{prefix}model.embed_tokens.weight"], ends[f"{prefix}lm_head.weight"]
    tied = kind == "llama-tied"
    assert torch.equal(embedding, head) == tied
    numbers = sum(tensor.numel() for tensor in saved.values()) - head.numel() * tied
    assert json.loads(Path("metrics/train.json").read_text("utf-8"))["trainable"] == numbers
    assert "trained whole: embed_tokens" in Path("models/adapter/README.md").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["export", "merged"])
    export()
    metrics = json.loads(Path("metrics/export-merged.json").read_text(encoding="utf-8"))
    assert abs(metrics["gap"]["loss"]["value"]) < 0.02
    merged = AutoModelForCausalLM.from_pretrained("models/export/merged")
    assert torch.equal(merged.get_input_embeddings().weight, embedding.bfloat16())
    assert torch.equal(merged.get_output_embeddings().weight, head.bfloat16())
    assert merged.config.tie_word_embeddings == tied
    monkeypatch.setattr(sys, "argv", ["export", "gguf-adapter"])
    with pytest.raises(ValueError, match=r"trained whole .* export gguf or merged"):
        export()


def test_two_processes_train_them_as_one_does(prepare):
    one = prepare("llama-tied", "one", **BOTH)
    two = prepare("llama-tied", "two", train__per_device_train_batch_size=2, **BOTH)
    assert sessions.train(one)[0] == 0
    both = sessions.start_two(two)
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = [load_file(folder / "models/adapter" / WEIGHTS) for folder in (one, two)]
    for name in (name for name in found[0] if ".lora_" not in name):
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-4, atol=1e-5)


def test_in_bfloat16_too_they_load_as_trained_and_the_bases_own_are_not_taken_for_trained(
    prepare, monkeypatch
):
    half = {"device": "cpu", "dtype": "bfloat16", "num_threads": 1, "matmul": "bfloat16"}
    folder = prepare("llama-tied", "half", compute=half, **BOTH)
    monkeypatch.chdir(folder)
    code, log = sessions.train(folder)
    assert code == 0, log
    places = (Path("models/base"), Path("data/prepared"), Path("models/adapter"))
    history = [entry for entry in sessions.read_history(folder) if "eval_loss" in entry]
    best = min(history, key=lambda entry: entry["eval_loss"])
    found = reload_loss(load(), *places, best["eval_sample_tokens"])
    assert found == pytest.approx(best["eval_sample_loss"], rel=1e-3)
    base = AutoModelForCausalLM.from_pretrained(folder.parent / "weights/llama-tied")
    path = folder / "models/adapter" / WEIGHTS
    saved = load_file(path)
    for name in saved:
        if ".lora_" not in name:
            assert saved[name].dtype == torch.float32
            saved[name] = base.get_input_embeddings().weight.detach().clone()
            saved[name] = saved[name].bfloat16().float()  # as the stage has loaded it
    _reseal(path, saved)
    with pytest.raises(ValueError, match=r"\.weight is the base model's: it was never trained"):
        reload_loss(load(), *places, 384)


def _reseal(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    from finetune.checkpoints import seal

    partial = path.parent.with_name(".adapter.partial")
    shutil.copytree(path.parent, partial)
    save_file(tensors, partial / path.name, metadata={"format": "pt"})
    seal(partial, path.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"export": {"kinds": ["gguf-adapter"], "max_loss_gap": 0.1}}, "export.kinds has gguf-ad"),
        ({"launch": {"command": "accelerate launch --config_file presets/launch/fsdp.yaml",
                     "config": "presets/launch/fsdp.yaml"}}, "not trained under FSDP here"),
        ({"lora__modules_to_save": []}, "lora.modules_to_save"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_whole_is_refused_in_the_first_second(
    tmp_path, write_params, changes, message
):
    write_params(tmp_path, **BOTH | changes)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "params.yaml")
