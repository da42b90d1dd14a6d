"""A multirun with a budget: what it trains in its time, what it leaves, and how it goes on."""

import csv
import dataclasses
import json
import math
import re
import time

import pytest

from conftest import DIGITS, family
from experiments.config.durations import between, seconds
from experiments.sweep import times
from experiments.sweep.budget import Budget
from experiments.sweep.estimate import Cost, Measured

GRID = [*DIGITS, "model.filters=4", "model.kernel_size=3", "model.dense_width=8", "early_stopping.patience=null"]
COST = Cost(1.0, 1.0, epochs=10, least=10)


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("45min", 2700), ("1.5h", 5400), ("1h30min", 5400), ("1min30s", 90)]
)
def test_a_duration_has_units(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(40, 55, "40 to 55 s"), (1080, 1560, "18 to 26 min"), (100, 130, "1.7 to 2.2 min"), (9000, 9001, "about 2.5 h")],
)
def test_a_duration_is_rounded_to_what_a_reader_needs(low, high, words):
    assert between(low, high) == words


def test_with_a_budget_every_setting_has_its_first_seed_before_any_has_its_second():
    points = [times.key([f"model.filters={filters}", f"seed={seed}"]) for filters in (8, 16) for seed in (1, 2, 3)]
    order = [tuple(text.rpartition("=")[2] for text in point.split("\n")) for point in times.repetitions_last(points)]
    assert order == [("8", "1"), ("16", "1"), ("8", "2"), ("16", "2"), ("8", "3"), ("16", "3")]


def measured(folder, points, around=2.0):
    """Write points of 10 epochs with these seconds per epoch, as the workers do."""
    for number, per_epoch in enumerate(points):
        line = {"point": f"seed={number}", **dataclasses.asdict(Measured(COST, 10, 10 * per_epoch, around))}
        with (folder / times.FILE).open("a") as file:
            file.write(json.dumps(line) + "\n")


def test_only_points_that_are_expected_to_end_in_time_are_started(tmp_path):
    budget = Budget(tmp_path, 100, time.time() + 100, workers=2)
    points = {f"seed={number}": COST for number in range(20)}
    batches = budget.batches(points)
    assert next(batches) == ["seed=0", "seed=1"]  # nothing is known yet: one for each worker
    measured(tmp_path, [1, 1])
    left, second = budget.left(), next(batches)
    assert 60 < left < 98 and second[0] == "seed=2" and 2 * left / 12 <= len(second) <= 2 * left / 12 + 4
    measured(tmp_path, [20, 20, 20])
    assert not budget.fits(COST) and list(batches) == []  # 200 s each


def test_without_a_budget_all_points_are_started(tmp_path):
    budget = Budget(tmp_path, math.inf, math.inf)
    assert list(budget.batches({"a": COST, "b": COST})) == [["a", "b"]] and budget.fits(COST)
    assert budget.left() == math.inf


def ranking(folder):
    (path,) = folder.glob("outputs/sweeps/*/report/ranking.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def cut(multirun, tmp_path_factory):
    """(folder, outputs, final metrics and epochs) of a grid: with a budget that is used up, the same again, and with enough."""
    folder = tmp_path_factory.mktemp("cut")
    outputs, states = [], []
    for budget in ("1s", "1s", "10min"):
        code, output = multirun(
            folder, *GRID, "training.epochs=2", "optimizer.lr=0.001,0.002", "seed=1,2", f"sweep.budget={budget}"
        )
        assert code == 0, output
        outputs.append(output)
        states.append({name: run.data.metrics for name, run in family(folder)[2].items()})
    return folder, outputs, states


def test_a_budget_that_is_used_up_starts_no_point(cut):
    _, outputs, states = cut
    for output, state in zip(outputs[:2], states[:2]):
        assert "the budget was used up: 4 points were not started" in output and not state
        assert "a larger sweep.budget goes on" in output


def test_a_larger_budget_goes_on_and_says_how_long_it_takes(cut):
    folder, outputs, states = cut
    assert len(states[2]) == 4 and all("kept/val_accuracy" in metrics for metrics in states[2].values())
    assert re.search(r"estimate: (about )?[\d.]+( to [\d.]+)? (s|min) for 4 points\n", outputs[2])
    assert "not started" not in outputs[2]
    assert {row["status"] for row in ranking(folder)} == {"finished"}


def test_a_budget_starts_every_configuration_before_a_second_seed(cut):
    started = sorted(family(cut[0])[2].items(), key=lambda point: point[1].info.start_time)
    assert [name.partition("seed=")[2] for name, _ in started] == ["1", "1", "2", "2"]


@pytest.fixture(scope="module")
def stopped(multirun, tmp_path_factory):
    """(folder, output) of a grid whose first point is much longer than the budget."""
    folder = tmp_path_factory.mktemp("stopped")
    code, output = multirun(folder, *GRID, "training.epochs=99999,100000", "sweep.budget=10s")
    assert code == 0, output
    return folder, output


def test_a_running_point_is_stopped_after_an_epoch(stopped, multirun):
    folder, output = stopped
    assert "the budget was used up: 1 point was not started, 1 point was stopped after an epoch" in output
    _, above, children = family(folder)
    ((_, run),) = children.items()
    assert run.info.status == "KILLED" and above.info.status == "FINISHED"
    assert re.fullmatch(r"after epoch \d+: the budget was used up", run.data.tags["pruned"])
    assert sorted(row["status"] for row in ranking(folder)) == ["not started", "pruned"]
    assert list(folder.glob("outputs/sweeps/*/checkpoints/*/*"))  # the other point continues from them
    assert 4 < float(next(folder.glob("outputs/sweeps/*/seconds")).read_text()) < 16


def test_a_search_with_a_budget_goes_on_too(multirun, tmp_path):
    search = [*GRID, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    code, output = multirun(tmp_path, *search, "training.epochs=1", "sweep.budget=1s")
    assert code == 0 and "the budget was used up: 2 points were not started" in output, output
    code, output = multirun(tmp_path, *search, "training.epochs=1", "sweep.budget=10min")
    assert code == 0 and "not started" not in output, output
    assert [run.info.status for run in family(tmp_path)[2].values()] == ["FINISHED"] * 2
