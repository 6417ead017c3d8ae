"""What a run cost: training time without the rest, added up over its sessions."""

import time

import pytest
import torch

from finetune.text.tokens import TokenRows, TokenWriter
from stages.train.cost import Meter, describe_cost
from stages.train.steps import Plan

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, in seconds, as its one item."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def plan(tmp_path) -> Plan:
    """Steps of 2 examples of 5 tokens."""
    with TokenWriter(tmp_path / "train") as writer:
        for number in range(4):
            writer.write(str(number), "law", [1, 2, 3, 4, 5], [2, 5])
    return Plan(TokenRows(tmp_path / "train"), seed=1, steps=9, share=2, processes=1, budget=99)


def _session(plan: Plan, clock: list[float], earlier: dict) -> dict:
    """Load 10 s, evaluate 5, a first step of 3, two of 1 with an evaluation of 4, the rest 20."""
    meter = Meter(plan, CPU, earlier)
    clock[0] += 10
    meter.phase_ended("load_s")
    meter.start()
    with meter.pause():
        clock[0] += 5
    clock[0] += 3
    meter.step_ended(1)
    for step in (2, 3):
        clock[0] += 1
        meter.step_ended(step)
    with meter.pause():
        clock[0] += 4
    meter.stop()
    clock[0] += 20
    return meter.total(3)


def test_speed_counts_training_after_the_first_step_alone(plan, clock):
    cost = describe_cost(_session(plan, clock, {}), CPU, "abc")
    assert cost["tokens_per_s"] == 10 and cost["warmup_s"] == 3 and cost["duration_s"] == 44
    first = cost["first_step"]
    assert first["load_s"] == 10 and first["evaluation_s"] == 5 and first["step_s"] == 3
    assert first["start_s"] > 0
    assert cost["fingerprint"] == "abc" and cost["hardware"] and cost["versions"]["torch"]


def test_sessions_add_up(plan, clock):
    cost = describe_cost(_session(plan, clock, _session(plan, clock, {})), CPU, "abc")
    assert cost["sessions"] == 2 and cost["duration_s"] == 88 and cost["tokens_per_s"] == 10


def test_a_session_without_a_step_keeps_the_earlier_numbers(plan, clock):
    total = Meter(plan, CPU, _session(plan, clock, {})).total(3)
    cost = describe_cost(total, CPU, "abc")
    assert cost["tokens_per_s"] == 10 and cost["warmup_s"] == 3
    assert cost["first_step"]["load_s"] == 10
