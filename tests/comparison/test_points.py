"""Points: the latest of several, and the settings that were swept."""

from sample_points import ACCURACY, point

from experiments.comparison import ranking
from experiments.comparison.points import Point, latest, swept_keys
from experiments.config.keys import key_labels


def test_of_points_run_again_the_latest_counts_and_names_are_distinct():
    def run(run_id, lr, filters):
        settings = {"optimizer.lr": lr, "model.filters": filters, "tracking.uri": run_id}
        return Point(run_id, f"lr={lr}", "finished", settings, {}, {})

    old, other, wider, new = run("1", "0.1", "8"), run("2", "0.2", "8"), run("3", "0.1", "16"), run("4", "0.1", "8")
    assert [point.run_id for point in latest([old, other, new])] == ["4", "2"]
    assert [point.name for point in latest([old, other])] == ["lr=0.1", "lr=0.2"]
    assert {point.name for point in latest([old, wider, new])} == {"filters=8", "filters=16"}


def test_what_a_choice_implies_is_not_a_swept_setting():
    adam, sgd = (
        {"optimizer__name": "adam", "optimizer__epsilon": 1e-8},
        {"optimizer__name": "sgd", "optimizer__momentum": 0.9},
    )
    points = [point(0.5, **choice, optimizer__lr=lr) for choice in (adam, sgd) for lr in (0.1, 0.01)]
    assert swept_keys(points) == ["optimizer.name", "optimizer.lr"]
    assert key_labels(["optimizer.name", "data.name", "a.lr", "b.lr", "model._target_"]) == {
        "optimizer.name": "optimizer",
        "data.name": "data",
        "a.lr": "a.lr",
        "b.lr": "b.lr",
        "model._target_": "model",
    }
    assert {"optimizer.momentum", "optimizer.epsilon"} <= set(ranking.table(points, [ACCURACY]))
