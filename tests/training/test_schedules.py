"""The learning rate at every step, against torch's own schedulers."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from experiments.config.loading import compose_config
from experiments.training.schedules import factor

STEPS, EPOCHS = 7, 6
ALL = STEPS * EPOCHS


def ours(*overrides):
    settings = compose_config(overrides).schedule
    return [factor(settings, step, STEPS, EPOCHS) for step in range(ALL)]


def theirs(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(ALL):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(factors) < ALL:
            scheduler.step()
    return factors


def test_constant_changes_nothing():
    assert ours() == [1.0] * ALL


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_linear_is_torchs(end):
    expected = theirs(lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, end, ALL - 1))
    assert ours("schedule=linear", f"schedule.end={end}") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_cosine_is_torchs(end):
    expected = theirs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, ALL - 1, end))
    assert ours("schedule=cosine", f"schedule.end={end}") == pytest.approx(expected, abs=1e-12)


def test_step_is_torchs():
    expected = theirs(lambda optimizer: lr_scheduler.StepLR(optimizer, 2 * STEPS, 0.3))
    assert ours("schedule=step", "schedule.every=2", "schedule.factor=0.3") == pytest.approx(expected)


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_the_warm_up_is_torchs(start):
    expected = theirs(lambda optimizer: lr_scheduler.LinearLR(optimizer, max(start, 1e-9), 1.0, 2 * STEPS))
    warm = ("schedule.warmup=2", f"schedule.start={start}")
    assert ours(*warm) == pytest.approx(expected, abs=1e-8)
    for name in ("linear", "cosine", "step"):
        found = ours(f"schedule={name}", *warm)
        assert found[: 2 * STEPS] == pytest.approx(expected[: 2 * STEPS], abs=1e-8)
        assert found[2 * STEPS] == 1


def test_onecycle_is_torchs():
    rise = (0.25 * (ALL - 1) + 1) / ALL  # torch has the peak a step earlier
    expected = theirs(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer, 1.0, ALL, pct_start=rise, div_factor=20, final_div_factor=50, cycle_momentum=False
        )
    )
    found = ours("schedule=onecycle", "schedule.peak=0.25", "schedule.start=0.05", "schedule.end=0.001")
    assert found == pytest.approx(expected, abs=1e-12)


def test_triangular_is_torchs():
    up = 0.25 * (ALL - 1)
    expected = theirs(
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.2, 1.0, up, ALL - 1 - up, cycle_momentum=False)
    )
    found = ours("schedule=triangular", "schedule.peak=0.25", "schedule.start=0.2", "schedule.end=0.2")
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine", "triangular", "onecycle"])
def test_the_last_step_has_exactly_the_end(name):
    ends = ["schedule.warmup=0.99"] if name in ("linear", "cosine") else ["schedule.peak=1"]
    for options in ([], ends):
        settings = compose_config([f"schedule={name}", "schedule.end=0.3", *options]).schedule
        for steps, epochs in ((1, 1), (1, 2), (2, 1), (7, 6)):
            factors = [factor(settings, step, steps, epochs) for step in range(steps * epochs)]
            assert factors[-1] == 0.3 and all(math.isfinite(value) and 0 <= value <= 1 for value in factors)
