"""What a base model's small files tell before its weights are fetched: can it be trained here?

Reads config.json and the tokenizer's files, in seconds; raises one ValueError that names everything
that cannot work.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from finetune.model.targets import check_targets
from finetune.params import Params

# Without keys and values to keep, prompts cannot be read once and answered token by token here.
NO_CACHE = {"mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "xlstm"}
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")

log = logging.getLogger(__name__)


def check_base(folder: Path, params: Params) -> None:
    """Raise ValueError where the model of `folder` cannot be what params say; warn of the rest."""
    settings = _read(folder / "config.json")
    if problem := _why_unknown(settings, folder):
        raise ValueError(f"model.name {params.model.name}: {problem}")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    checks = (_quantised, _positions, _vocabulary, _targets)
    problems = [each for check in checks for each in check(folder, config, params)]
    if problems:
        raise ValueError(f"model.name {params.model.name}: " + "; ".join(problems))


def _why_unknown(settings: dict[str, Any], folder: Path) -> str | None:
    """Why transformers has no causal language model of this kind; None where it has."""
    kind, made = settings.get("model_type"), settings.get("architectures") or []
    code = settings.get("auto_map") or _read(folder / "tokenizer_config.json").get("auto_map")
    if kind not in CONFIG_MAPPING and code:
        return (
            f"it needs Python code of its own ({', '.join(_names(code))}), which is never run "
            "here: choose a model that transformers has itself"
        )
    if kind not in CONFIG_MAPPING:
        return f"config.json says model_type {kind}, which this version of transformers lacks"
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return (
            f"model_type {kind} is no causal language model in transformers (it is made for "
            f"{', '.join(made) or 'something else'}): choose a text model, such as the language "
            "model that it was built on"
        )
    if settings.get("is_encoder_decoder") or (made and not _generates(made)):
        return f"its weights are of {', '.join(made)}, which is no causal language model"
    if kind in NO_CACHE:
        return f"model_type {kind} keeps no keys and values, which answering needs"
    return None


def _names(auto_map: Any) -> list[str]:
    return sorted(auto_map) if isinstance(auto_map, dict) else [str(auto_map)]


def _generates(architectures: list[str]) -> bool:
    return any(name.endswith(_GENERATES) for name in architectures)


def _quantised(folder: Path, config: PretrainedConfig, params: Params) -> Iterator[str]:
    """A base that is quantised already must be what params say."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return
    found = found if isinstance(found, dict) else found.to_dict()
    wanted = params.quantization
    method = found.get("quant_method", "bitsandbytes")
    if method != "bitsandbytes" or not found.get("load_in_4bit"):
        yield (
            f"its weights are quantised already ({method}), which cannot be trained on as "
            f"{wanted.type}: choose the repository of the unquantised weights"
        )
        return
    for key, name, value in (
        ("bnb_4bit_quant_type", "type", wanted.type),
        ("bnb_4bit_use_double_quant", "double_quantization", wanted.double_quantization),
    ):
        if key in found and found[key] != value:
            yield (
                f"its weights are in 4 bits already, with {name} {found[key]}: "
                f"quantization.{name} is {value}"
            )


def _positions(folder: Path, config: PretrainedConfig, params: Params) -> Iterator[str]:
    """Learned positions end; rotary ones go on, untrained."""
    text = config.get_text_config()
    known = getattr(text, "max_position_embeddings", None)
    needed = params.preprocess.max_length + params.evaluate.max_new_tokens
    if not isinstance(known, int) or known >= needed:
        return
    told = (
        f"it has {known} positions, preprocess.max_length {params.preprocess.max_length} and "
        f"evaluate.max_new_tokens {params.evaluate.max_new_tokens} need {needed}"
    )
    if getattr(text, "rope_parameters", None) or getattr(text, "alibi", False):
        log.warning(f"warning: {told}: it was never trained on the ones behind")
    else:
        yield f"{told}: lower preprocess.max_length"


def _vocabulary(folder: Path, config: PretrainedConfig, params: Params) -> Iterator[str]:
    """Every token has a row of the embedding, and one of them ends an answer."""
    from finetune.text.prompts import open_tokenizer

    tokenizer, rows = open_tokenizer(folder), config.get_text_config().vocab_size
    beyond = sorted(
        (number, token) for token, number in tokenizer.get_vocab().items() if number >= rows
    )
    if beyond:
        number, token = beyond[0]
        yield (
            f"its tokenizer has token {token!r} as {number}, its embedding {rows} rows: "
            f"{len(beyond)} tokens were added without resizing the model"
        )


def _targets(folder: Path, config: PretrainedConfig, params: Params) -> Iterator[str]:
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    try:
        check_targets(skeleton, params.lora)
    except ValueError as error:
        yield str(error)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
