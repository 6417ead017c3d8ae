"""Train a LoRA adapter on the 4-bit base model.

In: base model, prepared training and validation rows. Out: the best adapter, checkpoints to
continue or evaluate, curves, metrics. Interrupted, it exits non-zero and continues when run again.
"""

import argparse
import json
import logging
import os
from pathlib import Path

import torch.distributed as dist
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from finetune.errors import run
from finetune.model.load import resolve
from finetune.params import Params, load
from finetune.records import write_json
from finetune.text.tokens import TokenRows
from stages.cost import keep_cost
from stages.train.adapter import count_parameters
from stages.train.callbacks import forget_lost_best, is_exhausted
from stages.train.checks import check, start_reports
from stages.train.cost import Meter, describe_cost, read_cost
from stages.train.curves import write_curves
from stages.train.fingerprint import describe_run
from stages.train.interruption import lost_in_one_line
from stages.train.outputs import sample_loss, summarize, write_adapter_folder, write_checkpoints
from stages.train.settings import is_main, processes, quieten, training_arguments
from stages.train.steps import Plan, make_plan
from stages.train.store import Store
from stages.train.training import MEMORY, is_evaluated, train
from stages.train.verify import verify

log = logging.getLogger(__name__)


def main() -> None:
    paths, params = _parse(), load()
    quieten()
    rows, validation = (TokenRows(paths.prepared / split) for split in ("train", "validation"))
    plan = make_plan(params, rows, processes())
    check(params, paths.base, plan, validation)
    facts = describe_run(params, paths.base, paths.prepared, plan.processes)
    store = Store(
        facts,
        params.train.save_total_limit,
        params.train.save_steps,
        params.train.keep_unfinished,
    )
    with lost_in_one_line():
        args = training_arguments(params, resolve(params.compute), plan, store.folder)
        start = _choose_start(store, params)
        meter = Meter(plan, args.device, read_cost(store.folder / "cost.json"))
        state = read_state(start, plan, params)
        if not is_finished(state, params):
            if is_main():
                start_reports(params)
            state = train(paths, params, (rows, validation), plan, store, args, meter, start)
    if is_main():
        write_outputs(paths, params, plan, store, state)
        cost = describe_cost(meter.total(state.global_step), args.device, store.folder.name)
        keep_cost(cost)
        write_json(paths.cost, cost)
        store.finish()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m stages.train")
    parser.add_argument("base", type=Path, help="base model, models/base")
    parser.add_argument("prepared", type=Path, help="rows, data/prepared")
    parser.add_argument("adapter", type=Path, help="out: the best adapter")
    parser.add_argument("checkpoints", type=Path, help="out: the last ones and the best")
    parser.add_argument("--curves", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--cost", type=Path, required=True)
    return parser.parse_args()


def _choose_start(store: Store, params: Params) -> Path | None:
    """The checkpoint to continue from, which the main process chooses for all."""
    chosen: list[Path | None] = [None]
    if is_main():
        explicit = Path(params.train.resume_from) if params.train.resume_from else None
        store.open(os.environ.get("FRESH", "0") not in ("", "0"), explicit)
        if explicit:
            store.adopt(explicit)
        chosen = [store.newest()]
    if dist.is_initialized():
        dist.broadcast_object_list(chosen)
    if chosen[0]:
        log.info(f"continuing from {chosen[0]}")
    return chosen[0]


def read_state(checkpoint: Path | None, plan: Plan, params: Params) -> TrainerState | None:
    """The state that `checkpoint` holds, on its way to the end of `plan`; None without one.

    Raises ValueError where it is past that end.
    """
    if checkpoint is None:
        return None
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if state.global_step > plan.steps:
        raise ValueError(
            f"{checkpoint} is at step {state.global_step}, past the {plan.steps} steps of "
            "params.yaml: raise train.max_steps or train.num_train_epochs"
        )
    state.max_steps, state.eval_steps = plan.steps, params.train.eval_steps
    forget_lost_best(state, checkpoint.parent)
    return state


def is_finished(state: TrainerState | None, params: Params) -> bool:
    """Whether nothing is left to train: all steps are done, or early stopping ended the run."""
    if state is None or not is_evaluated(state):
        return False
    patience = params.train.early_stopping_patience
    metric = params.train.metric_for_best_model
    return state.global_step >= state.max_steps or is_exhausted(state, metric, patience)


def write_outputs(
    paths: argparse.Namespace, params: Params, plan: Plan, store: Store, state: TrainerState
) -> None:
    """Write adapter, checkpoints, curves and metrics; the adapter only if it loads as trained."""
    best = store.folder / f"step-{state.best_global_step}"
    metrics = summarize(state, plan, count_parameters(best)) | {"fingerprint": store.folder.name}
    if metrics["eval_loss"] >= metrics["eval_loss_first"]:
        log.warning("warning: no checkpoint is better on the validation rows than no training")
    write_curves(paths.curves, state.log_history)
    write_checkpoints(store, state, paths.checkpoints)
    facts_of_run = {
        "metrics": metrics,
        "continued": store.facts.get("continued"),
        "memory": json.loads((store.folder / MEMORY).read_text(encoding="utf-8")),
    }
    write_adapter_folder(best, params, paths.base, paths.prepared, facts_of_run, paths.adapter)
    verify(paths.base, paths.prepared, paths.adapter, *sample_loss(state))
    write_json(paths.metrics, metrics)


if __name__ == "__main__":
    run(main)
