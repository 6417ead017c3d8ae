"""Gradients that are not numbers: noticed without waiting for the device at every step."""

from typing import Any

import torch


class Health:
    """The first step whose gradient was not finite."""

    def __init__(self) -> None:
        self._first = torch.tensor(0)

    def note(self, norm: Any, step: int) -> None:
        """Look at the gradient's norm in `step`, before the optimizer uses it.

        Raises on a CPU at once. A GPU would have to be waited for, so it only remembers; `check`
        is called before anything is logged, evaluated or saved.
        """
        norm = torch.as_tensor(norm)
        bad = torch.where(torch.isfinite(norm.detach()), 0, step)
        first = self._first.to(bad.device)
        self._first = torch.where(first > 0, first, bad)
        if bad.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise ArithmeticError naming the step, if there is one."""
        if step := int(self._first):
            raise ArithmeticError(f"the loss or its gradient is not a finite number at step {step}")
