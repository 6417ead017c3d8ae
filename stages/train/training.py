"""One session of training, from loading the model to its last checkpoint.

`train` loads the 4-bit base, puts an adapter on it and hands both to transformers' Trainer. A step
is `FlatTrainer.training_step`: all of the step's examples, cut into micro-batches, forward and
backward one after the other; what the optimizer does after it is Trainer's own. What makes a
forward pass fast, and why it computes the same, is in `fast/README.md`.
"""

import argparse
import gc
import json
import logging
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments

from finetune.captured import NotCapturable
from finetune.flat import attention
from finetune.flat.batches import STACKED_FROM, MicroBatch, collate, fill
from finetune.flat.losses import token_nll
from finetune.model.load import add_lora, load_base
from finetune.model.memory import recompute_layers, release
from finetune.params import Params
from finetune.records import write_json
from finetune.text.tokens import TokenRows
from stages.train.adapter import read_weights
from stages.train.callbacks import Progress, Resume, Stopping, Timing, is_better
from stages.train.cost import Meter
from stages.train.curves import Curves
from stages.train.evaluation import evaluation_batches, measure
from stages.train.fast import float8, last_layer, low_rank
from stages.train.fast.compiling import compile_layers, start_compiler
from stages.train.fast.fitting import Fit, Fitting, Memory, plan_memory
from stages.train.fast.graphs import Graphs
from stages.train.health import Health
from stages.train.interruption import Interrupted, Interruption
from stages.train.saving import save_checkpoint
from stages.train.steps import Ahead, Plan, Step, Steps
from stages.train.store import Store

# Below this share of supervised tokens the last layer's feed-forward part is cut down.
FEW = 0.5
# A pass over more tokens than this keeps the device busy for longer than launching it takes.
LARGEST_CAPTURED = 6144
# Captured passes keep their memory, beside what evaluation and a first pass take.
ROOM_FOR_GRAPHS = 1.2
MEMORY = "memory.json"  # how the run was held in memory, beside its checkpoints

log = logging.getLogger(__name__)


def train(
    paths: argparse.Namespace,
    params: Params,
    rows: tuple[TokenRows, TokenRows],
    plan: Plan,
    store: Store,
    args: TrainingArguments,
    meter: Meter,
    start: Path | None,
) -> TrainerState:
    """Train to the end and free the device; `rows` are training and validation.

    Ends the process with 128 + the signal where a signal came, and with ValueError where the loss
    is not a number.
    """
    memory = plan_memory(params, paths.base, plan, args.device)
    meter.estimated = memory.estimated
    model = load_model(params, paths.base, plan, memory, start)
    meter.phase_ended("load_s")
    manifest = json.loads((paths.base / "manifest.json").read_text(encoding="utf-8"))["model"]
    with Interruption() as interruption:
        trainer = FlatTrainer(
            model=model,
            args=args,
            rows=rows,
            plan=plan,
            store=store,
            base={"name": manifest["name"], "revision": manifest["revision"]},
            interruption=interruption,
            meter=meter,
            memory=memory,
        )
        trainer.remove_callback(PrinterCallback)
        # In this order: what draws must be there before what evaluates.
        trainer.add_callback(progress := Progress())
        trainer.add_callback(Curves(paths.curves))
        trainer.add_callback(Timing(meter))
        trainer.add_callback(Stopping(interruption, args, params.train.early_stopping_patience))
        trainer.add_callback(Resume(trainer, start))
        args.eval_on_start = start is None
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except Interrupted:
            _leave(trainer, interruption)
        except ArithmeticError as error:
            raise ValueError(
                f"{error}; the last good checkpoint is {store.newest() or 'none'}; lower "
                "train.learning_rate or train.max_grad_norm, or use compute.dtype float32"
            ) from None
        finally:
            progress.close()
        if interruption.signal and trainer.state.global_step < trainer.state.max_steps:
            _leave(trainer, interruption)
    if trainer.is_world_process_zero():
        write_json(store.folder / MEMORY, trainer.fitting.describe(memory))
    state = trainer.state
    trainer.accelerator.free_memory()
    del trainer, model
    _give_back()
    return state


def load_model(
    params: Params,
    base: Path,
    plan: Plan,
    memory: Memory,
    start: Path | None = None,
    weights: Path | None = None,
) -> PeftModel:
    """The base model with an adapter: fresh, of `train.init_adapter`, or of the checkpoint `start`.

    What makes it fast is put in here, and noted in `plan` where micro-batches depend on it.
    `weights` is the folder of the base's weights where no manifest names it.
    """
    if params.train.compile:
        start_compiler()
    model = load_base(base, memory.quantization, params.compute, weights)
    plan.padded = not attention.takes_flat(model)
    few = plan.supervised.sum() < FEW * plan.lengths.sum()
    plan.reads_few = bool(few) and last_layer.install(model)
    # With an embedding that is trained, a captured pass has not been tried.
    capturable = params.train.compile and not params.lora.modules_to_save
    plan.captured = capturable and _captures_pay(plan, memory)
    model = add_lora(model, params.lora, params.seed)
    low_rank.install(model)
    if memory.float8:
        log.info(f"{float8.install(model)} layers multiply in float8; evaluation does not")
        plan.filled = not plan.padded
    if params.train.compile:
        compile_layers(model)
    if start or params.train.init_adapter:
        read_weights(model, start or Path(params.train.init_adapter))
    return model


def _captures_pay(plan: Plan, memory: Memory) -> bool:
    """Where passes are small and memory is plenty. Several processes exchange gradients between."""
    mean = min(plan.lengths.mean() * plan.share, plan.budget)
    plenty = bool(memory.available) and ROOM_FOR_GRAPHS * memory.estimated < memory.available
    small = mean <= LARGEST_CAPTURED
    return plenty and plan.processes == 1 and small and not _is_stacked(plan)


def _is_stacked(plan: Plan) -> bool:
    """Whether passes are padded, or windows of one length, which have a faster attention."""
    return plan.padded or bool((plan.lengths >= STACKED_FROM).mean() > 0.5)


class FlatTrainer(Trainer):
    """Trainer with our own batches, steps, evaluation and checkpoints.

    One batch of its own is one whole optimizer step, so its gradient accumulation stays 1. Its data
    loader is neither sharded nor dispatched by accelerate: each process reads its own share.
    What it overrides and calls that is not public stands in tests/test_trainer.py.
    """

    def __init__(
        self,
        *,
        rows: tuple[TokenRows, TokenRows],
        plan: Plan,
        store: Store,
        base: dict[str, Any],
        interruption: Interruption,
        meter: Meter,
        memory: Memory,
        **options: Any,
    ) -> None:
        super().__init__(eval_dataset=rows[1], **options)
        self.rows, self.validation = rows
        self.plan, self.store, self.meter, self.health = plan, store, meter, Health()
        self._base, self._interruption = base, interruption
        pinned = self.args.device.type == "cuda"
        self._steps = Ahead(Steps(self.rows, plan, self.args.process_index), pinned)
        self._graphs: Graphs | None = None
        # Of the losses since the last logged step: their sum, and that step.
        self.loss_sum, self.logged_step = torch.zeros((), device=self.args.device), 0
        self.fitting = Fitting(memory.fits, self._cut_as, self.args.world_size)
        self.fitting.use(memory.fits[0])

    def get_train_dataloader(self) -> DataLoader:
        """One item is one process's share of one step."""
        return DataLoader(
            self._steps,
            batch_size=1,
            collate_fn=lambda steps: steps[0],
            # Of its own, so that opening the loader draws nothing from the run's generator.
            generator=torch.Generator(),
        )

    def get_batch_samples(self, epoch_iterator: Any, *_: Any) -> tuple[list[Step], None]:
        """The next step. Nothing is counted: the plan knows every process's supervised tokens."""
        return [next(epoch_iterator)], None

    def training_step(
        self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over a step; this process's part of the loss.

        Where memory ends, or a pass cannot be captured, the same examples are cut anew.
        """
        step, loss = inputs, None
        while loss is None:
            try:
                loss = self.fitting.attempt(partial(self._forward_backward, model, step))
            except NotCapturable as error:
                log.info(f"passes are launched by the host, not captured: {error}")
                self.plan.captured = False
            if loss is None:
                self.fitting.use(self.fitting.fit)
                step = self._steps[self.state.global_step]
        self.loss_sum += loss
        return loss

    def _forward_backward(self, model: nn.Module, step: Step) -> torch.Tensor:
        """Add the gradients of all micro-batches; return the loss.

        Scaled so that the mean over processes (which DDP and FSDP take of gradients) is the mean
        over the step's supervised tokens.
        """
        model.train()
        scale = self.args.world_size / step.supervised
        loss = torch.zeros((), device=self.args.device)
        if self.plan.captured:
            return loss + self._replay(model, step, scale)
        for number, batch in enumerate(step.micro_batches, start=1):
            last = number == len(step.micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss += self.backward(model, batch.to(self.args.device), scale)
        return loss

    def backward(
        self, model: nn.Module, batch: MicroBatch, scale: float | torch.Tensor
    ) -> torch.Tensor:
        """One micro-batch on the device: add to the gradients, return its summed loss x `scale`."""
        loss = token_nll(model, batch).sum() * scale
        self.accelerator.backward(loss)
        return loss.detach()

    def _replay(self, model: nn.Module, step: Step, scale: float) -> torch.Tensor:
        """The same from CUDA graphs."""
        if self._graphs is None:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self._graphs = Graphs(partial(self.backward, model), trained, self.args.device)
        self._graphs.begin_step()
        return torch.stack([self._graphs(batch, scale) for batch in step.micro_batches]).sum()

    def _cut_as(self, fit: Fit) -> None:
        """Cut steps as `fit` says from now on."""
        self.model.zero_grad(set_to_none=True)
        self._graphs = None
        self._steps.forget()
        release()
        self.plan.budget = fit.tokens
        if fit.recomputed and recompute_layers(self.model):
            self.plan.captured = False  # dropout's random states come from the host

    def probe(self, fit: Fit) -> None:
        """Run the longest examples that a pass of `fit` may hold, in training and in evaluation.

        Raises OutOfMemoryError where they do not fit. Leaves gradients, but no other trace.
        """
        device, model = self.args.device, self.model
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # The optimizer's two states come with the first step.
            held = torch.empty(8 * trained, dtype=torch.uint8, device=device)
            model.train()
            self.backward(model, self._longest(self.rows, fit).to(device), 1.0)
            model.eval()
            with torch.no_grad():
                token_nll(model, self._longest(self.validation, fit).to(device))
            del held

    def _longest(self, rows: TokenRows, fit: Fit) -> MicroBatch:
        group = fill(rows.lengths.tolist(), fit.tokens, self.plan.padded)[0]
        return collate([rows[at] for at in group], self.plan.padded)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The validation loss per supervised token, also of each source.

        Where a signal comes in between, the state is saved; the next session begins with it.
        """
        self.health.check()
        try:
            metrics = self._measure()
        except Interrupted:
            if self.state.global_step:
                self._save_checkpoint(self.model, None)
            raise
        if self.state.global_step and is_better(metrics, self.state, self.args):
            self.control.should_save = True  # the best evaluation always has a checkpoint
        return metrics

    def _measure(self) -> dict[str, float]:
        share = (self.args.process_index, self.args.world_size)
        batches = evaluation_batches(self.validation, self.plan.budget, self.plan.padded, *share)
        with self.meter.pause():
            losses = measure(self.model, batches, self.args.device, self._sum, self._stop_if_told)
        metrics = losses.as_metrics() | {"eval_sample_tokens": self.plan.budget}
        self.log(dict(metrics))
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_pending(self, checkpoint: Path) -> None:
        """Make up for the evaluation in which the last session was interrupted."""
        if is_evaluated(self.state):
            return
        self._determine_best_metric(self._measure(), None)
        self._load_rng_state(str(checkpoint))
        self._save_checkpoint(self.model, None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep what is a function of the run; no times, which differ from run to run."""
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            self.health.check()
            logs["loss"] = self._mean_loss()
        logs["epoch"] = round(self.plan.epochs(self.state.global_step), 4)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _mean_loss(self) -> float:
        """Of the steps since the last that was logged, over all processes."""
        steps = self.state.global_step - self.logged_step
        total = self._sum(self.loss_sum.clone()).item() / self.args.world_size
        self.loss_sum.zero_()
        self.logged_step = self.state.global_step
        return total / steps

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: Trainer would count padded batches."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.health.note(norm, self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.health.check()
        with self.meter.pause():
            save_checkpoint(self, self.store, self._base)
        if self.is_world_process_zero():
            self.meter.write(self.store.folder / "cost.json", self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing left to load: the adapter was read, strictly, before the model was wrapped."""

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.args.world_size > 1:
            dist.all_reduce(values)
        return values

    def _stop_if_told(self) -> None:
        if self._interruption.agreed():
            raise Interrupted


def is_evaluated(state: TrainerState) -> bool:
    """Whether the evaluation that is due at the state's step was made, if one is due."""
    due = state.global_step >= state.max_steps or state.global_step % state.eval_steps == 0
    made = any(e["step"] == state.global_step and "eval_loss" in e for e in state.log_history)
    return made or not due


def _leave(trainer: FlatTrainer, interruption: Interruption) -> None:
    """End the process; DVC takes the stage as failed, so that no half-trained adapter is kept."""
    step = trainer.state.global_step
    saved = f"saved in {trainer.store.folder}" if step else "nothing to save"
    log.warning(f"interrupted at step {step} of {trainer.plan.steps}, {saved}; run again to go on")
    raise SystemExit(128 + interruption.signal)


def _give_back() -> None:
    """Give the memory back, for the process that will load the adapter again."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if dist.is_initialized():
        dist.destroy_process_group()
