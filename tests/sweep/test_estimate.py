"""The estimate of how long a multirun takes: replayed over multiruns that were recorded (histories.csv).

Each row is a point: its multirun, the workers of that, multiply-adds and steps of an epoch, the most and the least epochs,
the seconds around the epochs, and those of each epoch.
"""

import csv
import itertools
from pathlib import Path

import pytest

from experiments.sweep.estimate import Cost, Measured, expected, interval, remaining

BEFORE = 0.3  # of the seconds around the epochs: for the data, before the first epoch


def recorded():
    """[(workers, [(cost, seconds around, seconds of each epoch)])]"""
    with Path(__file__).with_name("histories.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (int(group[0]["workers"]), [point(row) for row in group])
        for group in (list(rows) for _, rows in itertools.groupby(rows, key=lambda row: row["multirun"]))
    ]


def point(row):
    cost = Cost(float(row["work"]), float(row["steps"]), int(row["epochs"]), int(row["least"]))
    return cost, float(row["around"]), [float(second) for second in row["seconds"].split()]


def schedule(workers, points):
    """When each point starts and ends."""
    free, found = [0.0] * workers, []
    for _, around, seconds in points:
        start = min(free)
        free[free.index(start)] = end = start + around + sum(seconds)
        found.append((start, end))
    return found


def state(now, points, times):
    """(what was measured, the costs of the points that have trained no epoch)"""
    measured, left = [], []
    for (cost, around, seconds), (start, end) in zip(points, times):
        ends = itertools.accumulate(seconds, initial=start + BEFORE * around)
        epochs = sum(moment <= now + 1e-9 for moment in ends) - 1
        if epochs < 1:
            left.append(cost)
        else:
            measured.append(Measured(cost, epochs, sum(seconds[:epochs]), around if end <= now + 1e-9 else None))
    return measured, left


def replay(workers, points):
    """[whether the interval covers the time that is left], after the first epoch and after each point but the last."""
    times = schedule(workers, points)
    whole = max(end for _, end in times)
    first = times[0][0] + BEFORE * points[0][1] + points[0][2][0]
    covered = []
    for now in (first, *sorted(end for _, end in times)[:-1]):
        measured, left = state(now, points, times)
        low, high = interval(remaining(measured, left, workers))
        covered.append(low <= whole - now <= high)
    return covered


def test_the_interval_covers_the_truth_at_least_8_times_in_10():
    replays = [replay(*multirun) for multirun in recorded()]
    first = [covered[0] for covered in replays]
    later = [one for covered in replays for one in covered[1:]]
    assert len(replays) >= 10
    assert sum(first) >= 0.8 * len(first)
    assert sum(later) >= 0.8 * len(later)


def test_the_interval_becomes_narrow():
    cost = Cost(1.0, 1.0, epochs=5, least=5)
    points = [Measured(cost, 5, 10.0, 2.0)] * 10
    low, high = interval(remaining(points, [cost] * 10, workers=1))
    assert 90 < low < 120 < high < 150


def test_a_larger_network_is_expected_to_take_longer():
    small, large = Cost(1.0, 1.0, 5, 5), Cost(8.0, 1.0, 5, 5)
    first = [Measured(small, 5, 10.0, 2.0)]
    assert expected(first, small) == pytest.approx(12, rel=0.2) and expected(first, large) > 2 * expected(first, small)
    both = [*first, Measured(large, 5, 80.0, 2.0)] * 4
    assert expected(both, large) == pytest.approx(82, rel=0.2)
    assert expected(both, Cost(8.0, 1.0, epochs=2, least=2)) == pytest.approx(34, rel=0.2)


def test_two_workers_take_half_as_long():
    cost = Cost(1.0, 1.0, epochs=5, least=5)
    ended = [Measured(cost, 5, 10.0, 2.0)] * 10
    one, two = (sum(interval(remaining(ended, [cost] * 20, workers))) for workers in (1, 2))
    assert two == pytest.approx(one / 2, rel=0.1)
