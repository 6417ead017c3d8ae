"""The only place that loads a model: tokenizer, 4-bit base, fresh adapter, trained adapter."""

import os
import re
from dataclasses import replace
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from finetune.flat import attention, heads
from finetune.model.weights import locate
from finetune.params import Compute, Lora, Quantization


def resolve(compute: Compute) -> Compute:
    """`compute` with its `auto` values replaced by what this machine has."""
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if compute.device == "auto" else compute.device
    if device == "cuda" and not cuda:
        raise ValueError("compute.device is cuda, but torch sees no CUDA device; set it to cpu")
    dtype = compute.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return replace(compute, device=device, dtype=dtype)


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of `models/base` or of an adapter's folder; its pad token is never EOS."""
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        names = (tokenizer.unk_token, *tokenizer.all_special_tokens)
        others = [name for name in names if name not in (None, tokenizer.eos_token)]
        tokenizer.pad_token = others[0] if others else tokenizer.eos_token
    return tokenizer


def load_base(
    base: Path, quantization: Quantization, compute: Compute, weights: Path | None = None
) -> PreTrainedModel:
    """The base model in 4 bits, frozen, on this process's device, with flat-batch attention.

    `base` holds the manifest; `weights` names the folder instead where it is known.
    """
    compute = resolve(compute)
    if compute.num_threads and compute.device == "cpu":
        torch.set_num_threads(compute.num_threads)
    attention.register()
    model = AutoModelForCausalLM.from_pretrained(
        weights or locate(base),
        quantization_config=quantization_config(quantization, compute),
        dtype=getattr(torch, compute.dtype),
        device_map={"": _device(compute)},
        attn_implementation=attention.NAME,
        local_files_only=True,
        use_safetensors=True,
    )
    _disarm_cpu_packing(model)
    if quantization.dequantize:
        dequantize(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    heads.install(model)
    return model


def dequantize(model: nn.Module) -> None:
    """Replace every 4-bit layer of `model` by a plain one that holds the same rounded weights.

    The numbers stay those of the 4-bit model; they are no longer unpacked at every use. Takes
    the memory of the unquantised model.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear4bit):
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
            plain.weight = nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
            plain.bias = layer.bias
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, plain)


def add_lora(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """A fresh adapter on `model`; its first weights are a function of `seed` alone.

    Raises ValueError where a target module is not in the model.
    """
    check_targets(model, lora)
    set_seed(seed)
    # In float32 beside a bfloat16 model too: an update of 2.5e-5 is lost in a bfloat16 weight of
    # 0.01. `token_nll` computes with it in bfloat16.
    return get_peft_model(model, _lora_config(lora), autocast_adapter_dtype=True)


def load_adapter(model: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """`model` with the trained adapter of `folder`."""
    return PeftModel.from_pretrained(
        model, str(folder), is_trainable=trainable, autocast_adapter_dtype=True
    )


def check_targets(model: nn.Module, lora: Lora) -> None:
    """Raise ValueError where `lora.target_modules` names what `model` does not have."""
    if lora.target_modules == "all-linear":
        return
    if isinstance(lora.target_modules, str):
        names = [name for name, _ in model.named_modules()]
        if not any(re.fullmatch(lora.target_modules, name) for name in names):
            raise ValueError(
                f"lora.target_modules is {lora.target_modules!r}, which matches no whole name of a "
                f"module, such as {next((n for n in names if n.endswith('_proj')), names[-1])}"
            )
        return
    linear = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    missing = [
        target
        for target in lora.target_modules
        if not any(
            name == target or name.endswith(f".{target}") for name, _ in model.named_modules()
        )
    ]
    if missing:
        raise ValueError(
            f"lora.target_modules has {', '.join(missing)}, which the model lacks: "
            f"it has {', '.join(sorted(linear - {'lm_head'}))}, or write all-linear"
        )


def quantization_config(quantization: Quantization, compute: Compute) -> BitsAndBytesConfig:
    """`quantization` in transformers' terms; `compute` without `auto` values."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, compute.dtype),
        bnb_4bit_quant_storage=getattr(torch, quantization.storage),
    )


def _device(compute: Compute) -> str | int:
    """This process's device. Never `auto`: under several processes each would take GPU 0."""
    return "cpu" if compute.device == "cpu" else int(os.environ.get("LOCAL_RANK", "0"))


def _lora_config(lora: Lora) -> LoraConfig:
    targets = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        exclude_modules=lora.exclude_modules,
        use_dora=lora.use_dora,
        init_lora_weights=lora.init_lora_weights if lora.init_lora_weights != "default" else True,
        task_type="CAUSAL_LM",
    )


def _disarm_cpu_packing(model: nn.Module) -> None:
    """Keep bitsandbytes from packing the weights at the first evaluation.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 packs a Linear4bit in place when it is called
    outside of training, and every later training step then goes through a kernel that has no
    autograd: the loss looks normal and the gradients are wrong.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
