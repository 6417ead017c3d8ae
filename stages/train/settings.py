"""params.yaml in Trainer's own terms."""

import logging
import math
import os
import warnings
from pathlib import Path

import transformers
from transformers import Trainer, TrainingArguments

from finetune.params import Compute, Params
from stages.train.steps import Plan


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the outs."""
    return os.environ.get("RANK", "0") == "0"


def quieten() -> None:
    """Leave the log to us: one voice, and only that of the main process."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # True, harmless, and the recipe is the same on both.
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    if not is_main():
        logging.getLogger().setLevel(logging.ERROR)


def training_arguments(
    params: Params, compute: Compute, plan: Plan, output: Path
) -> TrainingArguments:
    """Trainer's arguments. Starts the process group where there are several processes."""
    train = params.train
    arguments = TrainingArguments(
        output_dir=str(output),
        seed=params.seed,
        use_cpu=compute.device == "cpu",
        max_steps=plan.steps,
        # One batch is one step: micro-batches are cut inside of it, by tokens.
        per_device_train_batch_size=plan.share,
        gradient_accumulation_steps=1,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=warmup_steps(params, plan),
        lr_scheduler_kwargs=train.lr_scheduler_kwargs,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=train.optim,
        logging_steps=train.logging_steps,
        eval_strategy="steps",
        eval_steps=train.eval_steps,
        save_steps=train.save_steps,
        metric_for_best_model=train.metric_for_best_model,
        greater_is_better=False,
        # It would wait for the device at every step; `Health` looks instead.
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        accelerator_config={"even_batches": False, "split_batches": False},
        report_to=train.report_to or "none",
        run_name=params.name,
        disable_tqdm=True,
    )
    _check_optimizer(arguments)
    return arguments


def warmup_steps(params: Params, plan: Plan) -> int:
    """The steps of warm-up, as a number or as a share of all."""
    return params.train.warmup_steps or math.ceil(params.train.warmup_ratio * plan.steps)


def _check_optimizer(arguments: TrainingArguments) -> None:
    """Some optimizers need a package or settings of their own; say so before loading weights."""
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except (ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        name = arguments.optim.value
        raise ValueError(f"train.optim is {name}, which cannot be used here: {error}") from None
