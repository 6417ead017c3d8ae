"""Any base model is taken as it should be, or refused: tiny ones, through the real loader."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import LoraLayer

from finetune.flat import attention, heads
from finetune.flat.batches import collate_flat, collate_padded
from finetune.flat.losses import token_nll
from finetune.model import probe
from finetune.model.check import check_base
from finetune.model.load import add_lora, load_base, share_in_4_bits
from finetune.model.targets import is_tied
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
    modules_to_save=None,
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


WHOLE = replace(LORA, modules_to_save=["embed_tokens", "lm_head"])


def plain_gradients(base, examples):
    """Transformers' own loss of one example at a time, summed, and the gradients of both ends."""
    head = base.get_output_embeddings()
    if isinstance(head, heads.LossHead):
        plain = torch.nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
        plain.weight = head.weight
        base.set_output_embeddings(plain)
    ends = {"embed_tokens": base.get_input_embeddings(), "lm_head": base.get_output_embeddings()}
    for end in ends.values():
        end.requires_grad_(True)
    total = 0.0
    for each in examples:
        ids = torch.from_numpy(each.input_ids).long()
        first = int(each.spans[0])
        labels = ids.clone()
        labels[:first] = -100
        loss = base.train()(input_ids=ids[None], labels=labels[None], use_cache=False).loss
        total = total + loss * (len(ids) - first)
    total.backward()
    return total.detach(), {
        f"{name}.{part}": p.grad for name, end in ends.items() for part, p in end.named_parameters()
    }


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma2", "phi"])
def test_modules_trained_whole_have_the_gradients_of_transformers_own_loss(
    name, tmp_path, monkeypatch
):
    monkeypatch.setattr(heads, "PIECE", 150)  # three rows of 50 words at a time
    base = load_tiny(name, tmp_path)
    tied, examples = is_tied(base), probe.make_examples(base, supervised=7)
    assert tied == (name in ("llama-tied", "gemma2"))
    taken = ARCHITECTURES[name][1]
    selects = last_layer.install(base)
    model = add_lora(base, WHOLE, seed=0)
    low_rank.install(model)
    batch = collate_flat(examples) if taken == FLAT else collate_padded(examples)
    losses, found = gradients(model, [last_layer.select(batch) if selects else batch])
    total, expected = plain_gradients(load_tiny(name, tmp_path), examples)
    assert losses.sum() == pytest.approx(total.item(), rel=1e-4)
    found = {
        key.replace(".modules_to_save.default", "").rpartition("model.")[2]: gradient
        for key, gradient in found.items()
        if "modules_to_save" in key
    }
    assert found.keys() == expected.keys() - ({"lm_head.weight"} if tied else set())
    for key, gradient in found.items():
        assert expected[key].any() and (gradient - expected[key]).norm() < 1e-3 * gradient.norm()


def test_modules_trained_whole_learn_in_float32_and_hand_on_bfloat16(tmp_path):
    model = add_lora(load_tiny("llama", tmp_path, "bfloat16"), WHOLE, seed=0)
    whole = {n: p for n, p in model.named_parameters() if p.requires_grad and "lora" not in n}
    assert len(whole) == 2 and all(p.dtype == torch.float32 for p in whole.values())
    types = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda module, args: types.append(args[0].dtype))
    before = {name: p.detach().clone() for name, p in whole.items()}
    optimizer = torch.optim.AdamW(whole.values(), lr=2e-5, weight_decay=0.0)
    batch = collate_flat(probe.make_examples(model.get_base_model()))
    gradients(model, [batch])
    optimizer.step()
    assert set(types) == {torch.bfloat16}
    read = set(batch.inputs["input_ids"].unique().tolist())
    for name, p in whole.items():
        moved = (p != before[name]).any(dim=1)
        assert moved.all() if "lm_head" in name else set(moved.nonzero()[:, 0].tolist()) <= read
        assert (p.detach() - before[name]).abs().max().item() == pytest.approx(2e-5, rel=0.01)


def test_without_the_adapter_the_base_answers_with_its_own_embedding_and_head(tmp_path):
    base = load_tiny("llama-tied", tmp_path)
    batch = collate_flat(probe.make_examples(base))
    expected = token_nll(base, batch)
    model = add_lora(base, WHOLE, seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    assert not torch.equal(token_nll(model, batch), expected)
    with model.disable_adapter():
        torch.testing.assert_close(token_nll(model, batch), expected)


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
    ("whole", "targets", "message"),
    [
        ("embed", "all-linear", "lora.modules_to_save has embed, which it lacks: .* these can be"),
        ("q_proj", "all-linear", "which is neither its embedding nor its head: .*embed_tokens, lm"),
        ("lm_head", ["q_proj", "lm_head"], "target_modules and lora.modules_to_save both name lm"),
    ],
)
def test_a_module_that_cannot_be_trained_whole_is_named_at_once(
    folder, write_params, tmp_path, whole, targets, message
):
    write_params(tmp_path, lora__modules_to_save=[whole], lora__target_modules=targets)
    with pytest.raises(ValueError, match=message) as error:
        check_base(folder, load(tmp_path / "params.yaml"))
    assert "\n" not in str(error.value)


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


def test_an_adapter_on_a_head_that_is_the_embedding_too_is_refused_at_once(
    folder, write_params, tmp_path
):
    tied = tmp_path / "tied"
    shutil.copytree(folder, tied)
    config = json.loads((tied / "config.json").read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = True
    (tied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_params(tmp_path, lora__target_modules=["q_proj", "lm_head"])
    params = load(tmp_path / "params.yaml")
    check_base(folder, params)
    with pytest.raises(ValueError, match="has lm_head, the head, whose weight is the embedding's"):
        check_base(tied, params)
