"""What is used of transformers' Trainer that is not public: a new release fails here, loudly."""

import ast
import inspect

import pytest
from transformers import Trainer

from tests.conftest import ROOT

# Overridden or called: the parameters that it is called with, and who calls it, in the Trainer that
# requirements.txt pins.
PRIVATE = {
    "_determine_best_metric": ("metrics, trial", "_maybe_log_save_evaluate"),
    "_get_grad_norm": ("model, grad_norm", "_run_epoch"),
    "_load_from_checkpoint": ("resume_from_checkpoint, model", "train"),
    "_load_rng_state": ("checkpoint", "_run_epoch"),
    "_save_checkpoint": ("model, trial", "_maybe_log_save_evaluate"),
}
PUBLIC = {
    "evaluate": "_evaluate",
    "floating_point_ops": "_run_epoch",
    "get_batch_samples": "_run_epoch",
    "get_train_dataloader": "_inner_training_loop",
    "log": "_maybe_log_save_evaluate",
    "training_step": "_run_epoch",
}


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_method_is_what_it_was(name):
    parameters, caller = PRIVATE[name]
    found = [
        each for each in inspect.signature(getattr(Trainer, name)).parameters if each != "self"
    ]
    assert ", ".join(found) == parameters
    assert f"self.{name}(" in inspect.getsource(getattr(Trainer, caller))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_method_is_called_where_it_was(name):
    assert f"self.{name}(" in inspect.getsource(getattr(Trainer, PUBLIC[name]))


def test_the_order_of_a_step_is_what_it_was():
    """Gradients, their norm, the optimizer, the schedule, the step's number, then what follows."""
    source = inspect.getsource(Trainer._run_epoch)
    order = [
        "self.training_step(",
        "self._get_grad_norm(",
        "self.optimizer.step()",
        "self.lr_scheduler.step()",
        "self.state.global_step += 1",
        "on_step_end(",
        "self._maybe_log_save_evaluate(",
    ]
    places = [source.index(each) for each in order]
    assert places == sorted(places)


def test_nothing_else_that_is_private_is_used():
    private = {name for name in dir(Trainer) if name.startswith("_") and not name.endswith("__")}
    source = inspect.getsource(Trainer)
    private |= {node.attr for node in ast.walk(ast.parse(source)) if is_own_private(node)}
    used = {
        node.attr
        for path in (ROOT / "stages/train").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in private
    }
    defined = {
        node.name
        for path in (ROOT / "stages/train").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name in private
    }
    assert used | defined == set(PRIVATE)


def is_own_private(node: ast.AST) -> bool:
    """Whether an expression is `self._name` in Trainer's own source."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )
