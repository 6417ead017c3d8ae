"""A Llama-like model, or an adapter for one, as a GGUF file that llama.cpp and Ollama run.

The official package `gguf` writes the file and knows the names; what is here is the order in which
llama.cpp keeps the rows of query and key, and which of its tokenizers a tokenizer.json is.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

LIKE_LLAMA = ("llama", "mistral")
TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BLOCK = 32  # numbers that share a scale in q8_0
_ARCH = gguf.MODEL_ARCH.LLAMA
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a text is split, to the letter -> llama.cpp's name. One more sign makes other tokens.
_SPLITS = {
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _WORDS + r"\p{N}" + _REST: "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}


def write_model(folder: Path, path: Path, name: str, kind: str) -> None:
    """Write the model of `folder` (config.json, safetensors, tokenizer) as `path`, all or nothing.

    `kind` is f16 or q8_0; vectors stay in float32. Raises ValueError for an architecture or a
    tokenizer that llama.cpp would read otherwise.
    """
    config = _read(folder / "config.json")
    check_architecture(config)
    partial = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[_ARCH])
    writer.add_name(name)
    writer.add_file_type(TYPES[kind][1])
    _add_sizes(writer, config)
    _add_tokenizer(writer, folder, config)
    for tensor_name, tensor in _tensors(folder):
        if tensor_name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        values = in_order(tensor_name, tensor, config).float().numpy()
        quantised, type_ = _pack(values, TYPES[kind][0])
        writer.add_tensor(_name(tensor_name, config), quantised, raw_dtype=type_)
    _finish(writer, partial, path)


def write_adapter(folder: Path, base: Path, path: Path, name: str) -> None:
    """Write the adapter of `folder`, for the base whose config.json is in `base`."""
    config, lora = _read(base / "config.json"), _read(folder / "adapter_config.json")
    check_architecture(config)
    if lora.get("bias", "none") != "none" or lora.get("use_dora"):
        raise ValueError(
            "an adapter with trained biases or DoRA has no form in GGUF: export merged"
        )
    if whole := lora.get("modules_to_save"):
        raise ValueError(
            f"an adapter with modules that were trained whole ({', '.join(whole)}, "
            "lora.modules_to_save) has no form in GGUF: export gguf or merged"
        )
    partial = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(partial, gguf.MODEL_ARCH_NAMES[_ARCH])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp multiplies by alpha / r.
    alpha = lora["lora_alpha"] * (math.sqrt(lora["r"]) if lora.get("use_rslora") else 1)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for key in sorted(file.keys()):
            module, _, matrix = key.removeprefix("base_model.model.").partition(".lora_")
            tensor = file.get_tensor(key).float()
            if matrix.startswith("B"):
                tensor = in_order(f"{module}.weight", tensor, config)
            name_ = f"{_name(f'{module}.weight', config)}.lora_{matrix[0].lower()}"
            writer.add_tensor(name_, tensor.contiguous().numpy().astype(np.float32))
    _finish(writer, partial, path)


def check_architecture(config: dict[str, Any]) -> None:
    """Raise ValueError for a model that is not written here."""
    kind = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if kind not in LIKE_LLAMA:
        raise ValueError(
            f"GGUF is written for {', '.join(LIKE_LLAMA)} only, not for {kind}: export merged, and "
            "convert that folder with the script that comes with llama.cpp"
        )
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"GGUF is not written for positions of type {rope['rope_type']}")


def _add_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    model = _read(folder / "tokenizer.json")["model"]
    pieces = {number: piece for piece, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for number in range(config["vocab_size"]):
        tokens.append(pieces.get(number, f"[PAD{number}]"))
        types.append(_token_type(number, tokens[-1], pieces, added))
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(_scores(folder, tokens))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splitter(folder))
        merges = model["merges"]
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if number is not None:
            add(number)
    first = tokenizer("a").input_ids[:1]
    writer.add_add_bos_token(bool(first) and first == [tokenizer.bos_token_id])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.get_chat_template())


def _token_type(number: int, piece: str, pieces: dict[int, str], added: dict[int, Any]) -> int:
    if number not in pieces:
        return gguf.TokenType.UNUSED
    if number in added:
        return gguf.TokenType.CONTROL if added[number].special else gguf.TokenType.USER_DEFINED
    if len(piece) == 6 and piece.startswith("<0x"):
        return gguf.TokenType.BYTE
    return gguf.TokenType.NORMAL


def splitter(folder: Path) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits a text before merging."""
    found = _read(folder / "tokenizer.json").get("pre_tokenizer") or {}
    *first, last = found.get("pretokenizers", [found])
    rules = [(each["type"], each.get("individual_digits")) for each in first]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if not last.get("use_regex", True) and rules == [("Split", None)]:
            if name := _SPLITS.get(first[0]["pattern"].get("Regex")):
                return name
        elif last.get("use_regex", True) and rules in ([], [("Digits", True)]):
            return "smollm" if rules else "gpt-2"
    raise ValueError(f"{folder}: llama.cpp has no tokenizer that splits a text as this one does")


def _scores(folder: Path, tokens: list[str]) -> list[float]:
    from sentencepiece import SentencePieceProcessor

    path = folder / "tokenizer.model"
    if not path.exists():
        raise ValueError(f"{folder} lacks tokenizer.model, which holds the scores of the tokens")
    pieces = SentencePieceProcessor(model_file=str(path))
    size = pieces.get_piece_size()
    return [pieces.get_score(n) if n < size else -10000.0 for n in range(len(tokens))]


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)


def in_order(name: str, tensor: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    """Rows of query and key with the two halves that are rotated together next to each other."""
    heads = config["num_attention_heads"]
    layer = name.rpartition(".")[0]  # its weight and its bias alike
    if layer.endswith("k_proj"):
        heads = config.get("num_key_value_heads") or heads
    elif not layer.endswith("q_proj"):
        return tensor
    halves = tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def _pack(
    values: np.ndarray, wanted: gguf.GGMLQuantizationType
) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    if values.ndim == 1:
        return values.astype(np.float32), gguf.GGMLQuantizationType.F32
    if wanted == gguf.GGMLQuantizationType.Q8_0 and values.shape[-1] % BLOCK:
        wanted = gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(values, wanted), wanted


def _name(name: str, config: dict[str, Any]) -> str:
    names = gguf.get_tensor_name_map(_ARCH, config["num_hidden_layers"])
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ValueError(f"GGUF has no name for the tensor {name}")
    return found


def _finish(writer: gguf.GGUFWriter, partial: Path, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
