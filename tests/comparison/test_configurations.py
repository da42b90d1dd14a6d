"""Configurations: the one with the best mean wins, not the one with a lucky seed."""

from dataclasses import replace

import numpy as np
import pytest
from sample_points import ACCURACY, compared, grid, point
from scipy import stats

from experiments.comparison import ranking, terminal
from experiments.comparison.configurations import configurations
from experiments.config.command_line import Command


def order(points, objective=ACCURACY):
    return [group.name for group in configurations(points, objective)]


LUCKY = {8: [0.70, 0.71, 0.72], 16: [0.95, 0.60, 0.50], 32: [0.65, 0.66, 0.67]}


def test_a_lucky_seed_does_not_win():
    comparison = compared(grid(LUCKY))
    assert order(grid(LUCKY)) == ["filters=8", "filters=16", "filters=32"]
    assert comparison.winner.value(ACCURACY) == pytest.approx(0.71)
    assert [each.settings["seed"] for each in comparison.winner.finished] == ["1", "2", "3"]
    rows = comparison.table
    assert rows["place"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert rows[ACCURACY].tolist() == [0.72, 0.71, 0.70, 0.95, 0.60, 0.50, 0.67, 0.66, 0.65]
    assert order(grid(LUCKY), "val/loss") == ["filters=8", "filters=16", "filters=32"]


def test_with_equal_numbers_the_mean_alone_decides():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {filters: rng.random(3) * rng.random() for filters in range(5)}
        names = [f"filters={filters}" for filters in sorted(values, key=lambda filters: -values[filters].mean())]
        assert order(grid(values)) == names


def test_of_equal_means_the_smaller_standard_error_wins():
    wide, narrow = [0.6, 0.7, 0.8], [0.7, 0.7 + 1e-3, 0.7 - 1e-3]
    for values in ({8: wide, 16: narrow, 4: wide[::-1]}, {8: narrow, 16: wide}):
        best = next(f"filters={filters}" for filters, row in values.items() if row is narrow)
        assert order(grid(values))[0] == best  # although the sums differ in the last digit


def test_fewer_seeds_need_a_better_mean():
    """The bound is the lower end of the 95 % interval with the standard deviation of all, pooled."""
    values = {8: [0.70, 0.72, 0.71], 16: [0.60, 0.64, 0.62]}
    pooled = np.sqrt((2 * np.var(values[8], ddof=1) + 2 * np.var(values[16], ddof=1)) / 4)
    half = stats.t.ppf(0.975, 4) * pooled
    needed = 0.71 - half / np.sqrt(3) + half  # of a single seed, to be as good as the mean of three
    for lucky, winner in ((needed - 1e-6, "filters=8"), (needed + 1e-6, "filters=32")):
        points = grid({**values, 32: [lucky, None, None]})
        assert order(points)[0] == winner
        assert order(points, "val/loss")[0] == winner  # the upper end: a loss is one minus the accuracy here


def test_without_a_deviation_the_mean_decides():
    """No configuration has two seeds that finished."""
    points = [point(0.7, a=1, seed=1), point(0.8, a=2, seed=2), *(point(status="failed", a=a, seed=3) for a in (1, 2))]
    assert order(points) == ["a=2", "a=1"]


def test_the_winner_is_no_lucky_fold():
    points = [
        point(value, filters=filters, data__folds=3, data__fold=fold)
        for filters, row in LUCKY.items()
        for fold, value in enumerate(row)
    ]
    assert order(points)[0] == "filters=8"


def test_a_seed_of_the_data_that_follows_the_seed_repeats_a_configuration():
    points = [replace(each, settings={**each.settings, "data.seed": each.settings["seed"]}) for each in grid(LUCKY)]
    assert order(points) == order(grid(LUCKY))
    other = [replace(each, settings={**each.settings, "data.seed": "7"}) for each in points[:3]]
    assert len(order([*points[:3], *other])) == 4  # splits that differ for another reason are settings


def test_the_front_has_configurations(capsys):
    seconds = {8: 10, 16: 5, 32: 20}
    points = [
        replace(each, metrics={**each.metrics, "seconds": seconds[int(each.settings["filters"])] + place % 3})
        for place, each in enumerate(grid(LUCKY))
    ]
    front = ranking.pareto(points, [ACCURACY, "seconds"])
    assert [(each.name, each.value("seconds")) for each in front] == [("filters=8", 11), ("filters=16", 6)]
    terminal.show_comparison(compared(points, (ACCURACY, "seconds")), "")
    assert "Pareto-optimal in val/accuracy and seconds: 1, 2\n" in capsys.readouterr().out


def evaluated(points, accuracies):
    """The points, the first of which have been evaluated on the test set."""
    metrics = [{"test/loss": 1.0, "test/accuracy": accuracy} for accuracy in accuracies]
    done = [replace(each, metrics={**each.metrics, **new}) for each, new in zip(points, metrics)]
    return compared([*done, *points[len(accuracies) :]])


def test_the_statement_has_the_test_accuracy_over_seeds():
    three = [0.6, 0.62, 0.7]
    low, high = stats.t.interval(0.95, 2, np.mean(three), stats.sem(three))
    spread = f"{np.mean(three):.4f} ± {np.std(three, ddof=1):.4f} (mean ± sd; 95 % interval {low:.4f} to {high:.4f})"
    assert evaluated(grid(LUCKY), three).statement.startswith(
        f"Only the winner's 3 seeds were evaluated on the test set: accuracy {spread}. The ranking"
    )
    assert evaluated(grid({8: LUCKY[8]}), three).statement.startswith("All 3 seeds were evaluated on the test set")
    assert evaluated(grid(LUCKY), three[:2]).statement.startswith("2 of 9 points were evaluated")
    two = evaluated(grid({8: [0.7, 0.71], 16: [0.5, 0.6]}), [0.6, 0.62])
    assert "2 seeds were evaluated on the test set: accuracy 0.6100 ± 0.0141 (mean ± sd). " in two.statement
    assert (two.test_accuracy.n, two.winner.metrics["test/accuracy"]) == (2, pytest.approx(0.61))


def command_of(*points, typed=("c",)):
    """The command of the winner; the settings of each point are all that its overrides say."""
    given = [
        replace(
            each, overrides=[f"{key}={value}" for key, value in each.settings.items()], settings=dict(each.settings)
        )
        for each in points
    ]
    return compared(given, command=Command(tuple(typed), multirun=True))


def test_the_command_trains_all_seeds_of_the_winner():
    def setting(accuracies, filters, **more):
        return [
            point(value, model__filters=filters, seed=seed, **more) for seed, value in enumerate(accuracies, start=1)
        ]

    points = [*setting(LUCKY[8], 8), *setting(LUCKY[16], 16)]
    assert command_of(*points).winner_command == "python train.py -m model.filters=8 seed=1,2,3"
    failed = point(status="failed", model__filters=8, seed=4)
    assert command_of(*points, failed).winner_command.endswith(" seed=1,2,3,4")
    assert command_of(*points[2:4]).winner_command == "python train.py model.filters=16 seed=1"
    drawn = [point(0.5, model__filters=8, data__seed=seed, seed=seed) for seed in (3, 1)]
    assert command_of(*drawn).winner_command == "python train.py -m model.filters=8 'data.seed=${seed}' seed=1,3"
    folds = [point(0.5, model__filters=8, data__folds=2, data__fold=fold) for fold in (0, 1)]
    assert command_of(*folds).winner_command == "python train.py model.filters=8"
    assert "without folds" in command_of(*folds).winner_note and not command_of(*points).winner_note
