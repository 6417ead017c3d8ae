"""What can be known to fail before any weights are loaded."""

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from transformers import SchedulerType, get_scheduler
from transformers.training_args import OptimizerNames

from finetune.model.memory import skeleton
from finetune.model.targets import check_targets
from finetune.params import Lora, Params
from finetune.text.tokens import TokenRows
from stages.train.adapter import CONFIG, WEIGHTS
from stages.train.steps import Plan

MANY_EPOCHS = 100
_FORM = ("use_rslora", "use_dora")  # of an adapter

log = logging.getLogger(__name__)


def check(params: Params, base: Path, plan: Plan, validation: TokenRows) -> None:
    """Raise ValueError for names and sizes that cannot work; warn of those that hardly can."""
    _check_names(params)
    _check_steps(params, plan)
    _check_processes(params, plan.processes)
    if not len(validation):
        raise ValueError(
            "the validation split is empty: raise preprocess.validation_share, or give the source "
            "a validation file"
        )
    longest = max(plan.lengths.max(), validation.lengths.max())
    if longest > plan.budget:
        raise ValueError(
            f"train.micro_batch_tokens is {plan.budget}, an example has {longest} tokens: "
            "raise it, or lower preprocess.max_length"
        )
    _check_metric(params.train.metric_for_best_model, validation)
    check_targets(skeleton(base), params.lora)
    if params.train.init_adapter:
        _check_first_adapter(Path(params.train.init_adapter), params.lora, base)


def _check_first_adapter(folder: Path, lora: Lora, base: Path) -> None:
    """What shapes do not show: its weights count as they did only with the same scale and form."""
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ValueError(f"train.init_adapter is {folder}: there is no {name} in it")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for theirs, ours in (("r", "r"), ("lora_alpha", "alpha"), *((n, n) for n in _FORM)):
        was, now = config.get(theirs), getattr(lora, ours)
        if (was or False) != (now or False):
            raise ValueError(
                f"train.init_adapter is {folder}, trained with lora.{ours} {was}; params.yaml has "
                f"{now}: set it to {was}, or leave train.init_adapter empty"
            )
    if scales := config.get("alpha_pattern"):
        raise ValueError(
            f"train.init_adapter is {folder}, trained with alpha_pattern {scales}, which "
            "params.yaml has not: its layers would count otherwise"
        )
    model = json.loads((base / "manifest.json").read_text(encoding="utf-8"))["model"]
    named = config.get("base_model_name_or_path")
    if named and named != model["name"]:
        log.warning(
            f"warning: train.init_adapter is {folder}, trained on {named}; the base here is "
            f"{model['name']}"
        )


def start_reports(params: Params) -> None:
    """Begin the run at Weights & Biases, where params.yaml asks for it; Trainer then reports to it.

    Here, because Trainer would begin it after the weights are loaded. Raises ValueError where the
    key is missing or wrong, or the server does not answer.
    """
    if "wandb" not in params.train.report_to:
        return
    import wandb

    try:
        wandb.init(project=os.environ.get("WANDB_PROJECT", "huggingface"), name=params.name)
    except Exception as error:  # of many kinds, not all of them wandb's own
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"train.report_to has wandb, which cannot begin: {reason} Set WANDB_API_KEY, or "
            "WANDB_MODE=offline to send later (`wandb sync`), or take wandb out"
        ) from None


def _check_names(params: Params) -> None:
    train = params.train
    for key, value, known in (
        ("optim", train.optim, OptimizerNames),
        ("lr_scheduler_type", train.lr_scheduler_type, SchedulerType),
    ):
        names = sorted(each.value for each in known)
        if value not in names:
            raise ValueError(f"train.{key} is {value}: transformers has {', '.join(names)}")
    _check_schedule(train.lr_scheduler_type, train.lr_scheduler_kwargs)
    missing = [name for name in train.report_to if find_spec(name) is None]
    if missing:
        raise ValueError(f"train.report_to has {missing[0]}: pip install {missing[0]}")


def _check_schedule(name: str, options: dict[str, Any]) -> None:
    """Some schedules need options of their own, and none takes another's."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    try:
        get_scheduler(name, optimizer, 1, 10, scheduler_specific_kwargs=dict(options))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"train.lr_scheduler_type is {name}, which needs other train.lr_scheduler_kwargs than "
            f"{options}: {error}"
        ) from None


def _check_metric(name: str, validation: TokenRows) -> None:
    """The loss of a source is measured where there are several."""
    sources = validation.sources if len(validation.sources) > 1 else []
    known = ["eval_loss", *(f"eval_loss_{source}" for source in sources)]
    if name not in known:
        raise ValueError(f"train.metric_for_best_model is {name}: here is {', '.join(known)}")


def _check_steps(params: Params, plan: Plan) -> None:
    train, epochs = params.train, plan.epochs(plan.steps)
    if train.warmup_steps >= plan.steps:
        raise ValueError(
            f"train.warmup_steps is {train.warmup_steps}, but {train.num_train_epochs} epochs are "
            f"{plan.steps} steps: the learning rate would never be reached"
        )
    log.info(
        f"{plan.steps} steps of {plan.examples_per_step} examples: {epochs:.1f} passes over "
        f"{len(plan.lengths)} examples"
    )
    if epochs > MANY_EPOCHS:
        log.warning(
            f"warning: each of the {len(plan.lengths)} examples will be seen {epochs:.0f} times: "
            "expect the model to learn them by heart; the best checkpoint will be an early one"
        )


def _check_processes(params: Params, processes: int) -> None:
    """accelerate starts one process in silence where its configuration says MULTI_CPU."""
    if params.lora.modules_to_save and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise ValueError(
            f"lora.modules_to_save is {params.lora.modules_to_save}: not trained under FSDP here; "
            "leave it empty, or launch with ddp.yaml"
        )
    if "--config_file" not in params.launch.command:
        return
    wanted = YAML(typ="safe").load(Path(params.launch.config)).get("num_processes", 1)
    if "WORLD_SIZE" in os.environ and wanted != processes:
        raise ValueError(
            f"{params.launch.config} says num_processes {wanted}, but {processes} were started; "
            "for several processes on a CPU write distributed_type MULTI_GPU and use_cpu true"
        )
