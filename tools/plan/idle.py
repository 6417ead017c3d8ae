"""Options that do nothing: set to something, and the run is the same without them.

An option that another one switches off is named only where it can be set to nothing itself, so
that a params file without idle options exists for every run.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from finetune.model.memory import quantised
from finetune.model.targets import is_target, is_trained
from finetune.params import Params
from stages.train.fast.float8 import SMALLEST_HIDDEN
from tools.plan.findings import Finding, listed
from tools.plan.schedule import Schedule

# Optimizers that do not take transformers' adam_* values.
NOT_ADAM = ("sgd", "adafactor", "adagrad", "rmsprop", "lomo")
ADAM_DEFAULTS = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
ANSWERED = ("exact_match", "token_f1", "accuracy", "chrf", "rouge")  # scores of an answer


def find_idle(
    params: Params, device: str, plan: Schedule, model: nn.Module | None
) -> list[Finding]:
    """The options without effect on `device`, cpu or cuda; `model` is without weights, or None."""
    found = [*_model(params), *_data(params), *_preprocess(params), *_train(params)]
    found += _on_cpu(params) if device == "cpu" else _on_gpu(params)
    if not plan.sharded and params.quantization.storage != "uint8":
        found.append(
            _of(params, "quantization.storage", "only FSDP shards need another type than uint8")
        )
    found += _lora(params)
    if model is not None:
        found += _in_model(params, model)
    if model is not None and device != "cpu":
        found += _in_float8(params, model)
    return found


def _of(params: Params, key: str, message: str) -> Finding:
    value: Any = params
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return Finding(key, value, message)


def _model(params: Params) -> Iterator[Finding]:
    model = params.model
    for name in ("file", "sha256"):
        if getattr(model, name) and model.source != "pypi":
            yield _of(params, f"model.{name}", f"is of a package, model.source is {model.source}")
    if model.revision and model.source == "folder":
        yield _of(params, "model.revision", "a folder has none")
    launch = params.launch
    if launch.command == "python" and not launch.config.endswith("one-process.yaml"):
        yield _of(params, "launch.config", "launch.command is python, which reads no such file")


def _data(params: Params) -> Iterator[Finding]:
    causal, plain = params.preprocess.mode == "causal", params.prompt.template == "plain"
    if params.prompt.template_kwargs and (plain or causal):
        why = "prompt.template is plain" if plain else "preprocess.mode is causal"
        yield _of(params, "prompt.template_kwargs", f"{why}: no template is filled in")
    for name, document in params.documents.items():
        for key in ("system", "instruction", "cut"):
            if causal and getattr(document, key):
                message = "preprocess.mode is causal: a text has no question"
                yield _of(params, f"documents.{name}.{key}", message)
    idle = [name for name in params.evaluate.metrics if name in ANSWERED] if causal else []
    if idle:
        message = f"{listed(idle)}: preprocess.mode is causal, nothing is answered"
        yield Finding("evaluate.metrics", None, message)


def _preprocess(params: Params) -> Iterator[Finding]:
    settings, data = params.preprocess, params.data
    sources = [*data.files.values(), *data.urls.values(), *data.hub.values()]
    named = [{*each.files, *getattr(each, "splits", {})} - {"all"} for each in sources]
    if all(named) and not data.web:
        shares = {key: getattr(settings, key) for key in ("validation_share", "test_share")}
        if used := [key for key, share in shares.items() if share]:
            key = " and ".join(f"preprocess.{name}" for name in used)
            yield Finding(key, None, "every source has splits of its own")
    if settings.phones == "keep" and settings.phone_regions:
        yield _of(params, "preprocess.phone_regions", "preprocess.phones is keep")
    if settings.max_uses and not settings.mixture_repeat:
        yield _of(params, "preprocess.max_uses", "preprocess.mixture_repeat is false")
    if settings.mixture_repeat and len(data.names()) == 1 and not settings.mixture_total:
        yield _of(params, "preprocess.mixture_repeat", "one source, and no mixture_total to reach")
    if settings.mode == "causal" and settings.max_truncated_share < 1:
        message = "preprocess.mode is causal: a long document becomes several examples"
        yield _of(params, "preprocess.max_truncated_share", message)


def _train(params: Params) -> Iterator[Finding]:
    train = params.train
    if any(name in train.optim for name in NOT_ADAM):
        for name, default in ADAM_DEFAULTS.items():
            if getattr(train, name) != default:
                yield _of(params, f"train.{name}", f"train.optim is {train.optim}")


def _on_cpu(params: Params) -> Iterator[Finding]:
    train = params.train
    if train.optim.startswith("paged"):
        message = f"nothing is paged on a CPU: the same as {train.optim.removeprefix('paged_')}"
        yield _of(params, "train.optim", message)
    if train.memory == "auto":
        message = "a CPU's memory is neither estimated nor tried: the same as fixed"
        yield _of(params, "train.memory", message)
    if params.compute.matmul != "bfloat16":
        yield _of(params, "compute.matmul", "on a CPU all products are in compute.dtype")


def _on_gpu(params: Params) -> Iterator[Finding]:
    if params.compute.num_threads:
        yield _of(params, "compute.num_threads", "is of a CPU")


def _lora(params: Params) -> Iterator[Finding]:
    lora = params.lora
    if lora.use_rslora and lora.r == 1:
        yield _of(params, "lora.use_rslora", "at rank 1 both scales are lora.alpha")
    started = params.train.init_adapter or params.train.resume_from
    if started and lora.init_lora_weights != "default":
        yield _of(params, "lora.init_lora_weights", f"the weights are those of {started}")


def _in_model(params: Params, model: nn.Module) -> Iterator[Finding]:
    """What has no object in this model."""
    lora, kind = params.lora, type(model).__name__
    if lora.bias != "none":
        linear = [(name, module) for name, module in quantised(model) if is_trained(name, lora)]
        with_bias = [name for name, module in linear if module.bias is not None]
        any_bias = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
        if not (any_bias if lora.bias == "all" else with_bias):
            yield _of(params, "lora.bias", f"{kind} has no biases there: nothing more is trained")
    excluded = lora.exclude_modules
    for each in [excluded] if isinstance(excluded, str) else excluded or []:
        wanted = each if isinstance(excluded, str) else [each]
        hit = [
            name
            for name, _ in quantised(model)
            if is_target(name, wanted) and is_target(name, lora.target_modules)
        ]
        if not hit:
            message = f"{each} names no layer that would get an adapter"
            yield Finding("lora.exclude_modules", None, message)
    if isinstance(lora.target_modules, list):
        for each in lora.target_modules:
            modules = [name for name, _ in model.named_modules() if is_target(name, [each])]
            if modules and not any(is_trained(name, lora) for name in modules):
                message = f"{each} is left out again by lora.exclude_modules"
                yield Finding("lora.target_modules", None, message)


def _in_float8(params: Params, model: nn.Module) -> Iterator[Finding]:
    if params.compute.matmul != "float8":
        return
    if reason := why_no_float8(params, model):
        yield _of(params, "compute.matmul", f"{reason}: products in bfloat16")
    elif params.quantization.dequantize:
        message = "compute.matmul float8 has weights of its own beside the 4-bit ones"
        yield _of(params, "quantization.dequantize", message)


def why_no_float8(params: Params, model: nn.Module) -> str | None:
    """As `float8.why_not` has it for a GPU that multiplies in float8, in fewer words."""
    hidden = model.config.get_text_config().hidden_size
    if params.lora.dropout:
        return f"lora.dropout is {params.lora.dropout}"
    if params.lora.use_dora:
        return "lora.use_dora needs the whole weights"
    if not params.train.compile:
        return "train.compile is false"
    if hidden < SMALLEST_HIDDEN:
        return f"hidden size {hidden} is too small to gain"
    return None
