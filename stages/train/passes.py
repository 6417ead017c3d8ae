"""The passes of a step: recorded where that pays, cut anew where memory ends."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from transformers import Trainer

from finetune.flat.batches import MicroBatch
from finetune.model.memory import Fit, checkpoint_layers, next_smaller, release
from stages.train.ahead import Ahead
from stages.train.fast.graphs import Graphs, NotRecordable
from stages.train.steps import Plan, Step

log = logging.getLogger(__name__)

Forward = Callable[[nn.Module, MicroBatch], torch.Tensor]


class Passes:
    """Adds up the gradients of a step; `forward` gives the loss of a micro-batch, summed."""

    def __init__(
        self, trainer: Trainer, plan: Plan, steps: Ahead, options: Sequence[Fit], forward: Forward
    ) -> None:
        self._trainer, self._plan, self._steps = trainer, plan, steps
        self.options, self.fit = list(options), options[0]
        self._forward = forward
        self._graphs: Graphs | None = None
        self._checkpoint()

    def run(self, model: nn.Module, step: Step) -> torch.Tensor:
        """Forward and backward over all micro-batches of `step`; its examples stay the same.

        Returns this process's part of the loss, scaled so that the mean over processes (which DDP
        and FSDP take of gradients, and Trainer of losses) is the mean over supervised tokens.
        Raises ValueError where memory does not hold the smallest pass.
        """
        while (loss := self._attempt(model, step)) is None:
            step = self._steps[self._trainer.state.global_step]
        return loss

    def apply(self, fit: Fit) -> None:
        """Cut steps as `fit` says from now on."""
        model = self._trainer.model
        model.zero_grad(set_to_none=True)
        self._graphs = None
        self._steps.forget()
        release()
        self.fit, self._plan.budget = fit, fit.tokens
        self._checkpoint()

    def _checkpoint(self) -> None:
        if self.fit.checkpointing and checkpoint_layers(self._trainer.model):
            self._plan.recorded = False  # a recorded pass cannot ask the host

    def backward(
        self, model: nn.Module, batch: MicroBatch, scale: float | torch.Tensor
    ) -> torch.Tensor:
        """One micro-batch: add to the gradients, return the loss times `scale`."""
        part = self._forward(model, batch) * scale
        self._trainer.accelerator.backward(part)
        return part.detach()

    def _attempt(self, model: nn.Module, step: Step) -> torch.Tensor | None:
        """The loss of the step; None where it is to be made again, cut or started differently."""
        smaller = False
        try:
            return self._pass_over(model, step)
        except NotRecordable as error:
            log.info(f"passes are launched one by one, not recorded: {error}")
            self._plan.recorded = False
        except torch.OutOfMemoryError as error:
            # Alone, a process cannot cut its step differently: the others would wait for it.
            if self._trainer.args.world_size > 1:
                raise ValueError(
                    f"process {self._trainer.args.process_index} ran out of memory at "
                    f"{self.fit.tokens} tokens: lower train.micro_batch_tokens ({error})"
                ) from None
            smaller = True
        # Outside of the except clauses: there the traceback would keep every tensor alive.
        self.apply(next_smaller(self.options, self.fit) if smaller else self.fit)
        return None

    def _pass_over(self, model: nn.Module, step: Step) -> torch.Tensor:
        model.train()
        scale = self._trainer.args.world_size / step.supervised
        loss = torch.zeros((), device=self._trainer.args.device)
        if self._plan.recorded:
            self._begin_graphs(model)
        for number, batch in enumerate(step.micro_batches, start=1):
            last = number == len(step.micro_batches)
            if self._plan.recorded:
                loss += self._graphs(batch, scale)
                continue
            with nullcontext() if last else self._trainer.accelerator.no_sync(model):
                loss += self.backward(model, batch.to(self._trainer.args.device), scale)
        return loss

    def _begin_graphs(self, model: nn.Module) -> None:
        if self._graphs is None:
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            self._graphs = Graphs(partial(self.backward, model), trained, self._trainer.args.device)
        self._graphs.begin_step()
