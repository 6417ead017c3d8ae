"""The forms in which other tools load the trained model: how each is written."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.records import write_json

# Of peft's own keys: those that every loader knows.
KEPT = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias"),
    *("use_rslora", "use_dora", "fan_in_fan_out", "inference_mode", "modules_to_save", "revision"),
)
KINDS = ("adapter", "merged", "gguf", "gguf-adapter")


@dataclass(frozen=True)
class Form:
    """What is written, of which adapter, and where.

    `base` is which weights the form stands on: the 4-bit ones that were trained on, unpacked, or
    the original ones. `type` is of GGUF.
    """

    kind: str
    folder: Path
    adapter: Path
    base: Literal["quantised", "original"] = "quantised"
    type: Literal["f16", "q8_0"] = "f16"


def write(form: Form, name: str) -> None:
    """Write the form into its folder, all or nothing; `name` is the model's."""
    writers = {
        "adapter": write_adapter,
        "merged": write_merged,
        "gguf": write_gguf,
        "gguf-adapter": write_gguf_adapter,
    }
    partial = form.folder.with_name(f".{form.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    writers[form.kind](form, name, partial)
    shutil.rmtree(form.folder, ignore_errors=True)
    partial.rename(form.folder)


def write_adapter(form: Form, name: str, folder: Path) -> None:
    """The adapter as peft lays it out, with a base that can be loaded by the name it gives.

    A hub model's name is that of its repository. Any other base is written beside the adapter, in
    16 bits, and named by its path from the repository's root, which is the same on every machine:
    the 4-bit weights that were trained on, unpacked, or for `base: original` the original ones.
    """
    from finetune.trained import read_settings

    settings = read_settings(form.adapter)
    for path in sorted(form.adapter.iterdir()):
        if path.name not in ("checksums.json", "adapter_config.json"):
            shutil.copyfile(path, folder / path.name)
    config = _read(form.adapter / "adapter_config.json")
    kept = {key: config[key] for key in KEPT if key in config}
    kept["base_model_name_or_path"] = config["base_model_name_or_path"]
    if settings["base"]["model"]["source"] != "hub":
        _save(_load_base(form), form, folder / "base")
        kept |= {
            "base_model_name_or_path": (form.folder / "base").as_posix(),
            "revision": None,
        }
    write_json(folder / "adapter_config.json", kept)


def write_merged(form: Form, name: str, folder: Path) -> None:
    """Base and adapter as one model in 16 bits."""
    from finetune.model.load import load_adapter
    from finetune.model.saved import without_warning_of_ties

    adapted = load_adapter(_load_base(form), form.adapter)
    with without_warning_of_ties():
        merged = adapted.merge_and_unload(safe_merge=True)
    _save(merged, form, folder)


def write_gguf(form: Form, name: str, folder: Path) -> None:
    """The merged model as model.gguf, and a Modelfile for Ollama."""
    from finetune.model.weights import obtain_exactly
    from finetune.trained import read_settings
    from stages.export import gguf_file

    weights = obtain_exactly(read_settings(form.adapter)["base"])
    gguf_file.check_architecture(_read(weights / "config.json"))
    merged = folder / "merged"
    merged.mkdir()
    write_merged(form, name, merged)
    gguf_file.write_model(merged, folder / "model.gguf", name, form.type)
    shutil.rmtree(merged)
    (folder / "Modelfile").write_text("FROM ./model.gguf\n", encoding="utf-8")


def write_gguf_adapter(form: Form, name: str, folder: Path) -> None:
    """The adapter alone as adapter.gguf, its base as base.gguf, and a Modelfile for Ollama."""
    from finetune.model.weights import obtain_exactly
    from finetune.trained import read_settings
    from stages.export import gguf_file

    weights = obtain_exactly(read_settings(form.adapter)["base"])
    gguf_file.write_adapter(form.adapter, weights, folder / "adapter.gguf", name)
    base = folder / "base"
    _save(_load_base(form), form, base)
    gguf_file.write_model(base, folder / "base.gguf", f"{name}-base", form.type)
    shutil.rmtree(base)
    text = "FROM ./base.gguf\nADAPTER ./adapter.gguf\n"
    (folder / "Modelfile").write_text(text, encoding="utf-8")


def _load_base(form: Form) -> Any:
    """The base without 4-bit layers, in float32 so that what is added to it is rounded once."""
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.model.load import load_base
    from finetune.model.weights import obtain_exactly
    from finetune.params import Compute, Quantization
    from finetune.trained import read_settings

    settings = read_settings(form.adapter)
    weights = obtain_exactly(settings["base"])
    if form.base == "quantised":
        quantization = Quantization(**settings["quantization"] | {"dequantize": True})
        compute = Compute(device="cpu", dtype="float32", num_threads=None, matmul="bfloat16")
        return load_base(form.adapter, quantization, compute, weights)
    return AutoModelForCausalLM.from_pretrained(
        weights, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )


def _save(model: Any, form: Form, folder: Path) -> None:
    """Write a model without adapter or 4-bit layers as transformers would, in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from finetune.model.load import load_tokenizer
    from finetune.model.weights import obtain_exactly
    from finetune.trained import read_settings

    weights = obtain_exactly(read_settings(form.adapter)["base"])
    state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    config = AutoConfig.from_pretrained(weights, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    if (weights / "generation_config.json").exists():
        plain.generation_config = GenerationConfig.from_pretrained(weights)
    plain.save_pretrained(folder)
    load_tokenizer(form.adapter).save_pretrained(folder)
    if (weights / "tokenizer.model").exists():
        shutil.copyfile(weights / "tokenizer.model", folder / "tokenizer.model")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
