"""Models of random weights in the shapes of real ones, in NF4.

Weights are made, quantised and written one matrix at a time, so that nothing of the full-precision
model (48 GB for the 24B shape) ever exists, on disk or in memory.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import MistralConfig, PreTrainedTokenizerFast

SHAPES = {
    "tiny": MistralConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=None,
    ),
    "7b": MistralConfig(  # mistralai/Mistral-7B-Instruct-v0.2, with the vocabulary of v0.3
        vocab_size=32768,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        sliding_window=None,
    ),
    "24b": MistralConfig(  # mistralai/Mistral-Small-24B-Instruct-2501
        vocab_size=131072,
        hidden_size=5120,
        intermediate_size=32768,
        num_hidden_layers=40,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        sliding_window=None,
    ),
    "70b": MistralConfig(  # the shape of meta-llama/Llama-3.3-70B-Instruct
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32768,
        sliding_window=None,
    ),
}


def count_weights(config: MistralConfig) -> tuple[int, int]:
    """Weights of the linear layers of the decoder, and of the head."""
    size, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads + config.num_key_value_heads
    layer = 2 * size * heads * config.head_dim + 3 * size * inner
    return layer * config.num_hidden_layers, config.vocab_size * size


def make_model(shape: str, folder: Path, storage: str = "uint8", layers: int | None = None) -> Path:
    """Write a quantised checkpoint with a tokenizer into `folder`; keep one that is there."""
    if (folder / "tokenizer.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = MistralConfig(
        **SHAPES[shape].to_dict() | ({"num_hidden_layers": layers} if layers else {})
    )
    torch.manual_seed(0)
    shards = [save_shard(folder, "ends", _ends(config))]
    shards += [
        save_shard(folder, f"layer-{number:03d}", _layer(config, number, storage))
        for number in range(config.num_hidden_layers)
    ]
    index = {name: file for shard in shards for name, file in shard.items()}
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    _save_config(config, folder, storage)
    _save_tokenizer(config.vocab_size, folder)
    return folder


def save_shard(
    folder: Path, name: str, tensors: Iterator[tuple[str, torch.Tensor]]
) -> dict[str, str]:
    """Write one safetensors file; return the file's name for each tensor."""
    kept = {key: tensor.cpu().contiguous() for key, tensor in tensors}
    file = f"model-{name}.safetensors"
    save_file(kept, folder / file, metadata={"format": "pt"})
    return dict.fromkeys(kept, file)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _random(rows: int, columns: int) -> torch.Tensor:
    drawn = torch.randn(rows, columns, device=_device(), dtype=torch.bfloat16)
    return drawn / math.sqrt(columns)


def _ends(config: MistralConfig) -> Iterator[tuple[str, torch.Tensor]]:
    yield "model.embed_tokens.weight", _random(config.vocab_size, config.hidden_size)
    yield "lm_head.weight", _random(config.vocab_size, config.hidden_size)
    yield "model.norm.weight", torch.ones(config.hidden_size, dtype=torch.bfloat16)


def _layer(config: MistralConfig, number: int, storage: str) -> Iterator[tuple[str, torch.Tensor]]:
    size, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    matrices = {
        "self_attn.q_proj": (queries, size),
        "self_attn.k_proj": (keys, size),
        "self_attn.v_proj": (keys, size),
        "self_attn.o_proj": (size, queries),
        "mlp.gate_proj": (inner, size),
        "mlp.up_proj": (inner, size),
        "mlp.down_proj": (size, inner),
    }
    prefix = f"model.layers.{number}"
    for name, (rows, columns) in matrices.items():
        weight, state = quantize_4bit(
            _random(rows, columns),
            compress_statistics=True,
            quant_type="nf4",
            quant_storage=getattr(torch, storage),
        )
        yield f"{prefix}.{name}.weight", weight
        for key, value in state.as_dict(packed=True).items():
            yield f"{prefix}.{name}.weight.{key}", value
    for name in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}.{name}.weight", torch.ones(size, dtype=torch.bfloat16)


def _save_config(config: MistralConfig, folder: Path, storage: str) -> None:
    values = config.to_dict() | {
        "architectures": ["MistralForCausalLM"],
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "quantization_config": {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": storage,
        },
    }
    (folder / "config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _save_tokenizer(words: int, folder: Path) -> None:
    """A tokenizer in which token n is written `tn`; the peers want one."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"t{n}": n for n in range(3, words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
    ).save_pretrained(folder)
