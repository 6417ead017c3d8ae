"""Any base model is taken as it should be, or refused: tiny ones, through the real loader."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from finetune.flat import attention
from finetune.flat.batches import collate_flat, collate_padded
from finetune.flat.losses import token_nll
from finetune.model import probe
from finetune.model.check import check_base
from finetune.model.load import add_lora, load_base, share_in_4_bits
from finetune.params import Compute, Lora, Quantization, load
from stages.train.fast import last_layer, low_rank
from tests.architectures import ARCHITECTURES, FLAT, REFUSED, write_model

QUANTIZATION = Quantization(type="nf4", double_quantization=True, storage="uint8", dequantize=False)
LORA = Lora(
    r=4,
    alpha=8.0,
    dropout=0.0,
    target_modules="all-linear",
    bias="none",
    use_rslora=False,
    exclude_modules=None,
    use_dora=False,
    init_lora_weights="default",
)
PAGE = Path(__file__).parents[1] / "docs/models.md"


def load_tiny(name, folder, dtype="float32"):
    """The model of this name as the stages load it."""
    compute = Compute(device="cpu", dtype=dtype, num_threads=None, matmul="bfloat16")
    path = write_model(name, folder)
    return load_base(path, QUANTIZATION, compute, weights=path)


def gradients(model, batches):
    """Losses, and the gradients of everything that is trained."""
    model.zero_grad()
    losses = torch.cat([token_nll(model.train(), batch) for batch in batches])
    losses.sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return losses.detach(), found


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_trains_as_one_example_at_a_time_would_or_is_refused(name, tmp_path):
    taken = ARCHITECTURES[name][1]
    if taken == REFUSED:
        with pytest.raises(ValueError, match="of the weights in the layers of .* are in 4 bits"):
            load_tiny(name, tmp_path)
        return
    base = load_tiny(name, tmp_path)
    assert share_in_4_bits(base) > 0.5
    assert attention.takes_flat(base) == (taken == FLAT)
    selects = last_layer.install(base)
    model = add_lora(base, LORA, seed=0)
    for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
        torch.nn.init.normal_(parameter, std=0.1)
    examples = probe.make_examples(base, supervised=3)
    alone = gradients(model, [collate_padded([each]) for each in examples])
    low_rank.install(model)
    together = collate_flat(examples) if taken == FLAT else collate_padded(examples)
    if selects:
        together = last_layer.select(together)
    losses, found = gradients(model, [together])
    torch.testing.assert_close(losses, alone[0], rtol=1e-3, atol=1e-4)
    layers = [m for n, m in model.named_modules() if isinstance(m, LoraLayer) and "vision" not in n]
    assert layers and len(found) == 2 * len(layers)
    for key, gradient in found.items():
        difference = (gradient - alone[1][key]).norm() / alone[1][key].norm().clamp(min=1e-9)
        assert difference < 2e-3, key


def test_the_page_lists_what_was_tried():
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {name: taken for name, (_, taken) in ARCHITECTURES.items()}


def test_what_text_never_reaches_gets_no_adapter_and_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    model = add_lora(load_tiny("gemma3", tmp_path), LORA, seed=0)
    adapted = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    assert len(adapted) == 14 and not any("vision" in name for name in adapted)
    assert any("text never reaches" in record.message for record in caplog.records)


def test_a_model_that_looks_ahead_is_refused(tmp_path, monkeypatch):
    base = load_tiny("llama", tmp_path)
    for layer in base.model.layers:
        layer.self_attn.is_causal = False
    monkeypatch.setattr(
        "transformers.models.llama.modeling_llama.create_causal_mask", lambda **_: None
    )
    with pytest.raises(ValueError, match="lets a token see those behind it"):
        probe.settle(base)


def test_biases_of_the_base_learn_in_float32_beside_a_bfloat16_model(tmp_path):
    lora = replace(LORA, bias="all")
    model = add_lora(load_tiny("qwen2", tmp_path, "bfloat16"), lora, seed=0)
    biases = {n: p for n, p in model.named_parameters() if n.endswith(".bias") and p.requires_grad}
    assert biases and all(bias.dtype == torch.float32 for bias in biases.values())
    before = {name: bias.detach().clone() for name, bias in biases.items()}
    optimizer = torch.optim.AdamW(biases.values(), lr=2e-5, weight_decay=0.0)
    batch = collate_flat(probe.make_examples(model.get_base_model()))
    for _ in range(3):
        gradients(model, [batch])
        optimizer.step()
    moved = [name for name, bias in biases.items() if not torch.equal(bias, before[name])]
    assert len(moved) == len(biases)


@pytest.fixture
def folder(tiny_weights, tmp_path):
    """A copy of the tiny model's small files, to be spoilt."""
    target = tmp_path / "model"
    shutil.copytree(tiny_weights, target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


def spoil(folder, name="config.json", **changes):
    settings = json.loads((folder / name).read_text(encoding="utf-8"))
    settings = {key: value for key, value in (settings | changes).items() if value is not None}
    (folder / name).write_text(json.dumps(settings), encoding="utf-8")


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
BAD_BASES = [
    ({"model_type": "mine", "auto_map": {"AutoConfig": "x.Y"}}, "needs Python code of its own"),
    ({"model_type": "unheard_of"}, "model_type unheard_of, which this version"),
    ({"model_type": "mistral3", "architectures": ["Mistral3ForConditionalGeneration"]},
     "model_type mistral3 is no causal language model"),
    ({"model_type": "t5"}, "no causal language model"),
    ({"architectures": ["MistralForSequenceClassification"]}, "is no causal language model"),
    ({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "keeps no keys and values"),
    ({"quantization_config": {"quant_method": "fp8"}}, r"quantised already \(fp8\)"),
    ({"quantization_config": NF4 | {"bnb_4bit_quant_type": "fp4"}}, "with type fp4"),
    ({"quantization_config": NF4 | {"bnb_4bit_use_double_quant": False}},
     "with double_quantization False"),
    ({"vocab_size": 300}, "its embedding 300 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_BASES)
def test_a_base_that_cannot_work_is_refused_by_its_small_files(
    folder, write_params, tmp_path, changes, message
):
    write_params(tmp_path)
    spoil(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        check_base(folder, load(tmp_path / "params.yaml"))
    assert "\n" not in str(error.value) and "model.name tiny" in str(error.value)


def test_a_base_in_the_4_bits_of_params_is_fine(folder, write_params, tmp_path):
    write_params(tmp_path)
    spoil(folder, quantization_config=NF4 | {"bnb_4bit_use_double_quant": True})
    check_base(folder, load(tmp_path / "params.yaml"))


def test_learned_positions_end_and_rotary_ones_are_warned_of(
    write_params, tmp_path, folder, caplog
):
    write_params(tmp_path, preprocess__max_length=600, train__micro_batch_tokens=600)
    values = load(tmp_path / "params.yaml")
    values = replace(values, lora=replace(values.lora, target_modules="all-linear"))
    check_base(folder, values)
    assert "it has 512 positions" in caplog.text
    small = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    words = {key: small[key] for key in ("vocab_size", "bos_token_id", "eos_token_id")}
    gpt2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_positions": 512}
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4}
    (folder / "config.json").write_text(json.dumps(words | gpt2 | sizes), encoding="utf-8")
    with pytest.raises(ValueError, match=r"has 512 positions, preprocess.max_length 600"):
        check_base(folder, values)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("embed_tokens", r"which is no linear layer \(Embedding\)"),
        ("q_prj", "which the model lacks"),
    ],
)
def test_a_target_that_cannot_work_is_named_at_once(
    folder, write_params, tmp_path, target, message
):
    write_params(tmp_path, lora__target_modules=["q_proj", target])
    with pytest.raises(ValueError, match=f"lora.target_modules has {target}, {message}"):
        check_base(folder, load(tmp_path / "params.yaml"))
