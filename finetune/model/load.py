"""The only place that loads a model: tokenizer, 4-bit base, fresh adapter, trained adapter."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.pytorch_utils import Conv1D

from finetune.flat import attention
from finetune.model import probe
from finetune.model.layers import layers_of
from finetune.model.saved import settle_copies, without_warning_of_ties
from finetune.model.targets import check_targets, find_saved, is_tied, is_trained
from finetune.model.weights import locate
from finetune.params import Compute, Lora, Quantization

log = logging.getLogger(__name__)

SMALLEST_SHARE = 0.5  # of the layers' weights in 4 bits


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
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
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
    folder = weights or locate(base)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization_config(quantization, compute),
        dtype=getattr(torch, compute.dtype),
        device_map={"": _device(compute)},
        attn_implementation=_first_attention(folder),
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    _disarm_cpu_packing(model)
    _check_share_in_4_bits(model)
    if quantization.dequantize:
        dequantize(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    probe.settle(model)
    return model


def _first_attention(folder: Path) -> str:
    """The attention to make the model with: `flat` where its code asks transformers for one.

    Older architectures look theirs up in a table of their own, which has no such name.
    """
    attention.register()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    if kind._supports_attention_backend:
        return attention.NAME
    return "sdpa" if kind._supports_sdpa else "eager"


def share_in_4_bits(model: nn.Module) -> float:
    """Of the weights in the decoder layers: how many are in 4 bits, 0 to 1.

    Experts of a mixture are three-dimensional parameters, which bitsandbytes leaves as they are.
    """
    in_4_bits = others = 0
    for layer in layers_of(model) or [model]:
        packed = [each for each in layer.modules() if isinstance(each, Linear4bit)]
        in_4_bits += sum(each.in_features * each.out_features for each in packed)
        held = {id(each.weight) for each in packed}
        others += sum(p.numel() for p in layer.parameters() if p.ndim > 1 and id(p) not in held)
    return in_4_bits / (in_4_bits + others) if in_4_bits + others else 0.0


def _check_share_in_4_bits(model: nn.Module) -> None:
    share = share_in_4_bits(model)
    if share < SMALLEST_SHARE:
        raise ValueError(
            f"only {share:.0%} of the weights in the layers of {type(model).__name__} are in 4 "
            "bits: bitsandbytes quantises plain linear layers, not the experts of a mixture or "
            "layers of a class of their own. The run would not be what params.yaml says: choose "
            "another base model"
        )


def dequantize(model: nn.Module) -> None:
    """Replace every 4-bit layer of `model` by a plain one that holds the same rounded weights.

    The numbers stay those of the 4-bit model; they are no longer unpacked at every use. Takes
    the memory of the unquantised model.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear4bit):
            plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
            plain.weight = nn.Parameter(plain_weight(layer), requires_grad=False)
            plain.bias = layer.bias
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, plain)


def plain_weight(layer: nn.Linear) -> torch.Tensor:
    """The weight [out, in] of a linear layer in the compute type, unpacked from 4 bits."""
    if not isinstance(layer, Linear4bit):
        return layer.weight.data
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight.to(layer.compute_dtype)


def add_lora(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """A fresh adapter on `model`; its first weights are a function of `seed` alone.

    What text never reaches (a tower for images) gets none. Raises ValueError where a target module
    is not in the model.
    """
    check_targets(model, lora)
    unreached, tied = find_unreached(model, lora), is_tied(model)
    if unreached:
        log.info(
            f"lora: left out, because text never reaches them: {unreached[0]} and "
            f"{len(unreached) - 1} more"
        )
    set_seed(seed)
    # In float32 beside a bfloat16 model too: an update of 2.5e-5 is lost in a bfloat16 weight of
    # 0.01. `token_nll` computes with it in bfloat16.
    config = _lora_config(lora, unreached, find_saved(model, lora))
    with without_warning_of_ties():
        adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    settle_copies(adapted, tied)
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # the base's own biases too, where they are trained
            parameter.data = parameter.data.float()
    return adapted


def find_unreached(model: PreTrainedModel, lora: Lora) -> list[str]:
    """The linear modules that `lora` names and a pass over text does not call, sorted.

    Not those inside of a decoder layer: which of its parts run may depend on the tokens.
    """
    head = model.get_output_embeddings()
    wanted = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and is_trained(name, lora)
    }
    called = probe.find_called(model)
    reached = [layer for layer in layers_of(model) if id(layer) in called]
    inside = {id(each) for layer in reached for each in layer.modules()}
    return sorted(
        name for name, each in wanted.items() if id(each) not in called and id(each) not in inside
    )


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """`model` with the trained adapter of `folder`, frozen.

    Beside a bfloat16 model, modules that were trained whole are rounded to bfloat16, as every pass
    of training rounds them.
    """
    with without_warning_of_ties():
        return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=True)


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


def _lora_config(
    lora: Lora, unreached: Sequence[str] = (), saved: Sequence[str] = ()
) -> LoraConfig:
    targets = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        exclude_modules=_excluded(lora, unreached),
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=lora.init_lora_weights if lora.init_lora_weights != "default" else True,
        modules_to_save=list(saved) or None,
        task_type="CAUSAL_LM",
    )


def _excluded(lora: Lora, unreached: Sequence[str]) -> str | list[str] | None:
    """What params.yaml leaves out, and what text never reaches."""
    if isinstance(lora.exclude_modules, str):
        return "|".join([f"(?:{lora.exclude_modules})", *map(re.escape, unreached)])
    return [*(lora.exclude_modules or []), *unreached] or None


def _disarm_cpu_packing(model: nn.Module) -> None:
    """Keep bitsandbytes from packing the weights at the first evaluation.

    On a CPU with AVX512-BF16, bitsandbytes 0.50.2 packs a Linear4bit in place when it is called
    outside of training, and every later training step then goes through a kernel that has no
    autograd: the loss looks normal and the gradients are wrong.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
