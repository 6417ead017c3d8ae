"""Tiny random models of many architectures, and how this project takes each."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

_COMMON = {
    "vocab_size": 50,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {"vocab_size": 50, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
_GPT |= {"initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

FLAT, PADDED, REFUSED = "flat", "padded", "refused"
# name (what stands before a dash is transformers' model_type) -> configuration, and how it is taken
ARCHITECTURES: dict[str, tuple[dict[str, Any], str]] = {
    "llama": (_COMMON, FLAT),
    "llama-tied": (_COMMON | {"tie_word_embeddings": True}, FLAT),
    "mistral": (_COMMON | {"sliding_window": None}, FLAT),
    "mistral-window": (_COMMON | {"sliding_window": 4}, FLAT),
    "qwen2": (_COMMON, FLAT),
    "qwen3": (_COMMON | {"head_dim": 16}, FLAT),
    "gemma": (_COMMON | {"head_dim": 16}, FLAT),
    "gemma2": (_COMMON | {"head_dim": 16}, PADDED),
    "gemma3_text": (
        _COMMON
        | {
            "head_dim": 16,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        FLAT,
    ),
    "gemma3": (
        {
            "text_config": _COMMON | {"head_dim": 16, "sliding_window": 4},
            "vision_config": _VISION,
            "mm_tokens_per_image": 4,
            "image_token_index": 49,
            "boi_token_index": 47,
            "eoi_token_index": 48,
        },
        FLAT,
    ),
    "phi": (_COMMON, FLAT),
    "phi3": (_COMMON, FLAT),
    "gpt_neox": (_COMMON, FLAT),
    "gpt2": (_GPT | _NO_DROPOUT, FLAT),
    "gpt_bigcode": (_GPT | _NO_DROPOUT, FLAT),
    "gpt_neo": (
        {
            "vocab_size": 50,
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 128,
            "initializer_range": 0.2,
        },
        PADDED,
    ),
    "gptj": (_GPT | _NO_DROPOUT | {"rotary_dim": 8}, PADDED),
    "codegen": (_GPT | _NO_DROPOUT | {"rotary_dim": 8}, PADDED),
    "bloom": (
        {"vocab_size": 50, "hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
        PADDED,
    ),
    "falcon": (
        {
            "vocab_size": 50,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "initializer_range": 0.2,
        },
        REFUSED,  # its linear layers are of a class of their own, which stays in 16 bits
    ),
    "opt": (
        {
            "vocab_size": 50,
            "hidden_size": 64,
            "ffn_dim": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "dropout": 0.0,
            "init_std": 0.2,
            "word_embed_proj_dim": 64,
            "max_position_embeddings": 128,
        },
        FLAT,
    ),
    "xglm": (
        {
            "vocab_size": 50,
            "d_model": 64,
            "ffn_dim": 128,
            "num_layers": 2,
            "attention_heads": 4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "init_std": 0.2,
            "max_position_embeddings": 128,
        },
        PADDED,
    ),
    "nemotron": (_COMMON, PADDED),
    "olmo2": (_COMMON, FLAT),
    "granite": (_COMMON | {"logits_scaling": 2.0}, FLAT),
    "cohere": (_COMMON | {"logit_scale": 0.5}, FLAT),
    "stablelm": (_COMMON, PADDED),
    "starcoder2": (_COMMON | {"residual_dropout": 0.0, "embedding_dropout": 0.0}, FLAT),
    "smollm3": (_COMMON | {"no_rope_layers": [1, 0]}, FLAT),
    "glm4": (_COMMON | {"head_dim": 16}, FLAT),
    "lfm2": (_COMMON | {"layer_types": ["conv", "full_attention"]}, PADDED),
    "mixtral": (_COMMON | {"num_local_experts": 4, "sliding_window": None}, REFUSED),
    "qwen3_moe": (_COMMON | _EXPERTS | {"head_dim": 16}, REFUSED),
    "gpt_oss": (_COMMON | {"head_dim": 16, "num_local_experts": 4}, REFUSED),
}


def write_model(name: str, folder: Path, **changes: Any) -> Path:
    """A tiny random model of this name, saved without a tokenizer; `changes` are of its config."""
    config = CONFIG_MAPPING[name.partition("-")[0]](**ARCHITECTURES[name][0] | changes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder / name
