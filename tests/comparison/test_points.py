"""Points: their names, their images, and the settings that were swept."""

import dataclasses

from sample_points import ACCURACY, compared, point

from experiments.comparison import ranking
from experiments.comparison.points import Point, on_other_images, swept_keys, with_distinct_names
from experiments.config.keys import key_labels


def test_no_point_is_left_out_and_names_are_distinct():
    def run(run_id, lr, filters):
        settings = {"optimizer.lr": lr, "model.filters": filters, "tracking.uri": run_id}
        return Point(run_id, f"lr={lr}", "finished", settings, {}, {})

    old, other, wider, new = run("1", "0.1", "8"), run("2", "0.2", "8"), run("3", "0.1", "16"), run("4", "0.1", "8")
    assert [point.run_id for point in with_distinct_names([old, other, new])] == ["1", "2", "4"]
    assert [point.name for point in with_distinct_names([old, other])] == ["lr=0.1", "lr=0.2"]
    assert [point.name for point in with_distinct_names([old, wider])] == ["filters=8", "filters=16"]
    assert with_distinct_names([old, new]) == [old, new]


def test_points_whose_files_have_changed_are_said():
    def on(images, root, seed):
        return dataclasses.replace(point(0.5, data__root=root, seed=seed), images=images)

    before, after, seeded, elsewhere = on("1", "a", 1), on("2", "a", 1), on("3", "a", 2), on("4", "b", 1)
    assert on_other_images([before, seeded, elsewhere, point(0.5, data__root="a", seed=1)]) == []
    assert compared([before, seeded]).warning == ""
    assert on_other_images([before, seeded, after]) == [after]
    assert compared([before, seeded, after]).warning.startswith(
        "1 of 3 points had other images than points with the same"
    )
    assert compared([before, seeded, elsewhere]).warning.startswith("The points are of several data sets (data.root)")
    assert compared([before, on("1", "a copy of a", 1), seeded]).warning == ""


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
