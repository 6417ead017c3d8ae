"""Write the trained model in the form that other tools load, and score that form.

    python -m tools.export adapter | merged | gguf | gguf-adapter
    python -m tools.export push --form merged --to OWNER/NAME

`adapter` is what PEFT, vLLM and SGLang load beside a base model; `merged` one model in 16 bits;
`gguf` and `gguf-adapter` what llama.cpp and Ollama run. Every form is scored on the test rows that
the adapter was scored on: metrics/export-KIND.json holds both losses and their difference with its
interval, and the command fails where that is above export.max_loss_gap. `push` uploads a form that
was written and scored to the Hugging Face Hub.
"""

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.checkpoints import find_damage
from finetune.errors import run
from finetune.params import Params, load
from finetune.records import write_json
from tools.push import push

# Of peft's own keys: those that every loader knows.
KEPT = (
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias"),
    *("use_rslora", "use_dora", "fan_in_fan_out", "inference_mode", "modules_to_save", "revision"),
)
KINDS = ("adapter", "merged", "gguf", "gguf-adapter")
FEW_TOKENS = 32  # of an answer, by which GGUF is compared

log = logging.getLogger(__name__)


def main() -> None:
    arguments, params = _parse(), load()
    if damage := find_damage(arguments.adapter):
        raise ValueError(f"{damage}: run `dvc repro`, or `dvc pull {arguments.adapter}`")
    if arguments.kind == "push":
        return push(arguments, params)
    folder = arguments.out / arguments.kind
    write = {
        "adapter": write_adapter,
        "merged": write_merged,
        "gguf": write_gguf,
        "gguf-adapter": write_gguf_adapter,
    }[arguments.kind]
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(arguments, params, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    log.info(f"written: {folder}")
    scored = score(arguments, params, folder) if arguments.rows else None
    write_full_card(arguments, folder, scored)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m tools.export",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=[*KINDS, "push"])
    parser.add_argument("--adapter", type=Path, default=Path("models/adapter"))
    parser.add_argument("--out", type=Path, default=Path("models/export"))
    parser.add_argument("--test", type=Path, default=Path("data/prepared/test"))
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument(
        "--base",
        choices=["quantised", "original"],
        default="quantised",
        help="what is merged into: the 4-bit weights that were trained on, unpacked, or the "
        "original ones",
    )
    parser.add_argument("--type", choices=["f16", "q8_0"], default="f16", help="of gguf")
    parser.add_argument("--rows", type=int, default=100, help="test rows to score; 0: do not")
    parser.add_argument("--form", choices=KINDS, default="merged", help="what push uploads")
    parser.add_argument("--to", help="OWNER/NAME of the repository that push writes to")
    parser.add_argument("--public", action="store_true", help="a repository that push makes")
    return parser.parse_args()


def write_adapter(arguments: argparse.Namespace, params: Params, folder: Path) -> None:
    """The adapter as peft lays it out, with a base that can be loaded by the name it gives.

    A hub model's name is that of its repository. Any other base is written beside the adapter, as
    it is before it is quantised, and named by its path from the repository's root, which is the
    same on every machine.
    """
    from finetune.model.weights import obtain_exactly

    settings = read_settings(arguments.adapter)
    for path in sorted(arguments.adapter.iterdir()):
        if path.name not in ("checksums.json", "adapter_config.json"):
            shutil.copyfile(path, folder / path.name)
    config = _read(arguments.adapter / "adapter_config.json")
    kept = {key: config[key] for key in KEPT if key in config}
    kept["base_model_name_or_path"] = config["base_model_name_or_path"]
    if settings["base"]["model"]["source"] != "hub":
        shutil.copytree(obtain_exactly(settings["base"]), folder / "base")
        where = arguments.out / arguments.kind / "base"
        kept |= {"base_model_name_or_path": where.as_posix(), "revision": None}
    write_json(folder / "adapter_config.json", kept)


def write_merged(arguments: argparse.Namespace, params: Params, folder: Path) -> None:
    """Base and adapter as one model in 16 bits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from finetune.model.load import load_tokenizer
    from finetune.model.weights import obtain_exactly

    weights = obtain_exactly(read_settings(arguments.adapter)["base"])
    merged = _load_for_merging(arguments).merge_and_unload(safe_merge=True)
    state = {name: value.to(torch.bfloat16) for name, value in merged.state_dict().items()}
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
    load_tokenizer(arguments.adapter).save_pretrained(folder)
    if (weights / "tokenizer.model").exists():
        shutil.copyfile(weights / "tokenizer.model", folder / "tokenizer.model")


def write_gguf(arguments: argparse.Namespace, params: Params, folder: Path) -> None:
    """The merged model as model.gguf, and a Modelfile for Ollama."""
    from finetune.model.weights import obtain_exactly
    from tools import gguf_file

    weights = obtain_exactly(read_settings(arguments.adapter)["base"])
    gguf_file.check_architecture(_read(weights / "config.json"))
    merged = folder / "merged"
    merged.mkdir()
    write_merged(arguments, params, merged)
    gguf_file.write_model(merged, folder / "model.gguf", params.name, arguments.type)
    shutil.rmtree(merged)
    (folder / "Modelfile").write_text("FROM ./model.gguf\n", encoding="utf-8")


def write_gguf_adapter(arguments: argparse.Namespace, params: Params, folder: Path) -> None:
    """The adapter alone as adapter.gguf, for the same base as GGUF."""
    from finetune.model.weights import obtain_exactly
    from tools import gguf_file

    weights = obtain_exactly(read_settings(arguments.adapter)["base"])
    gguf_file.write_adapter(arguments.adapter, weights, folder / "adapter.gguf", params.name)
    text = "FROM ./base.gguf\nADAPTER ./adapter.gguf\n"
    (folder / "Modelfile").write_text(text, encoding="utf-8")


def write_full_card(
    arguments: argparse.Namespace, folder: Path, scored: dict[str, Any] | None
) -> None:
    """README.md of the export, from the run; elsewhere than in the run's repository a warning."""
    from tools.card.making import write_card

    try:
        write_card(folder, arguments.kind, adapter=arguments.adapter, scored=scored)
    except ValueError as error:
        log.warning(f"README.md has no metrics: {error}")


def score(arguments: argparse.Namespace, params: Params, folder: Path) -> dict[str, Any]:
    """Write metrics/export-KIND.json. Raises ValueError above export.max_loss_gap."""
    from stages.evaluate.questions import read_questions

    questions = read_questions(arguments.test, arguments.rows)
    if arguments.kind.startswith("gguf"):
        metrics = _agreement(arguments, params, folder, questions)
    else:
        metrics = _losses(arguments, params, folder, questions)
    metrics |= {"kind": arguments.kind, "rows": len(questions), "merged_into": arguments.base}
    write_json(arguments.metrics / f"export-{arguments.kind}.json", metrics)
    log.info(json.dumps(metrics, sort_keys=True))
    gap, limit = metrics.get("gap"), params.export.max_loss_gap
    if gap is not None and gap["value"] > limit:
        raise ValueError(
            f"{folder} has a loss of {metrics['loss']} where the adapter has "
            f"{metrics['adapter_loss']}: more than export.max_loss_gap {limit} apart; export with "
            "--base quantised, which is what was trained on"
        )
    return metrics


def _losses(
    arguments: argparse.Namespace, params: Params, folder: Path, questions: Sequence[Any]
) -> dict[str, Any]:
    """Losses in nats per token of the export and of the adapter, and their paired difference."""
    from stages.evaluate.intervals import Bootstrap
    from stages.evaluate.losses import row_losses

    rows = [question.row for question in questions]
    tokens = [len(row.supervised()) for row in rows]
    found = {}
    for name, make in (("adapter", _load_trained), ("export", _load_exported)):
        model = make(arguments, folder)
        found[name] = row_losses(model, rows, params.evaluate.micro_batch_tokens)
        del model
    draws = {"samples": params.evaluate.bootstrap_samples, "seed": params.seed}
    groups = [each.group or each.document or each.row.id for each in questions]
    change = [b - a for a, b in zip(found["adapter"], found["export"], strict=True)]
    gap = Bootstrap(groups, **draws).mean(change, tokens)
    return {
        "adapter_loss": round(sum(found["adapter"]) / sum(tokens), 4),
        "loss": round(sum(found["export"]) / sum(tokens), 4),
        "gap": {
            key: None if (value := getattr(gap, key)) is None else round(value, 5)
            for key in ("value", "low", "high")
        },
    }


def _agreement(
    arguments: argparse.Namespace, params: Params, folder: Path, questions: Sequence[Any]
) -> dict[str, Any]:
    """Which share of answers, chosen greedily, llama.cpp begins as the adapter does.

    llama.cpp gives no losses of a text that it did not write itself.
    """
    from finetune.generation import answer_prompts
    from finetune.model.load import load_tokenizer
    from tools.llama_cpp import open_model

    tokenizer = load_tokenizer(arguments.adapter)
    prompts = [question.prompt() for question in questions]
    # An adapter alone is tried on the base in 16 bits, which is what GGUF has of it.
    own = _load_trained(arguments, folder)
    if arguments.kind == "gguf-adapter":
        own = _load_for_merging(arguments, "original")
    answers = answer_prompts(
        own,
        tokenizer,
        prompts,
        max_new_tokens=FEW_TOKENS,
        batch_tokens=params.evaluate.micro_batch_tokens,
    )
    if arguments.kind == "gguf":
        ask = open_model(folder / "model.gguf")
    else:
        base = _write_base_gguf(arguments, params)
        ask = open_model(base, folder / "adapter.gguf")
    theirs = [ask(prompt, FEW_TOKENS) for prompt in prompts]
    same = [a.text.strip() == b.strip() for a, b in zip(answers, theirs, strict=True)]
    first = [a.text.strip()[:12] == b.strip()[:12] for a, b in zip(answers, theirs, strict=True)]
    return {
        "same_answers": round(sum(same) / len(same), 4),
        "same_beginnings": round(sum(first) / len(first), 4),
        "type": arguments.type,
    }


def _write_base_gguf(arguments: argparse.Namespace, params: Params) -> Path:
    """The base alone as GGUF, to try the adapter on; kept beside it."""
    from finetune.model.weights import obtain_exactly
    from tools import gguf_file

    path = arguments.out / arguments.kind / "base.gguf"
    weights = obtain_exactly(read_settings(arguments.adapter)["base"])
    gguf_file.write_model(weights, path, f"{params.name}-base", "f16")
    return path


def _load_trained(arguments: argparse.Namespace, folder: Path) -> Any:
    """The adapter on its 4-bit base, as it was trained."""
    from tools.assistant import load_assistant

    return load_assistant(arguments.adapter, "auto").model


def _load_exported(arguments: argparse.Namespace, folder: Path) -> Any:
    """The export as others load it: by transformers and peft alone."""
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    from finetune.flat import attention

    attention.register()
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    options = {"dtype": dtype, "local_files_only": True, "attn_implementation": attention.NAME}
    kind = AutoPeftModelForCausalLM if arguments.kind == "adapter" else AutoModelForCausalLM
    model = kind.from_pretrained(folder, **options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _load_for_merging(arguments: argparse.Namespace, base_weights: str | None = None) -> Any:
    """The adapter on a base without 4-bit layers, in float32 so that the sum is rounded once."""
    import torch
    from transformers import AutoModelForCausalLM

    from finetune.model.load import load_adapter, load_base
    from finetune.model.weights import obtain_exactly
    from finetune.params import Compute, Quantization

    settings = read_settings(arguments.adapter)
    weights = obtain_exactly(settings["base"])
    if (base_weights or arguments.base) == "quantised":
        quantization = Quantization(**settings["quantization"] | {"dequantize": True})
        compute = Compute(device="cpu", dtype="float32", num_threads=None, matmul="bfloat16")
        base = load_base(arguments.adapter, quantization, compute, weights)
    else:
        base = AutoModelForCausalLM.from_pretrained(
            weights, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    return load_adapter(base, arguments.adapter)


def read_settings(adapter: Path) -> dict[str, Any]:
    """How the adapter was trained."""
    return _read(adapter / "settings.json")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run(main)
