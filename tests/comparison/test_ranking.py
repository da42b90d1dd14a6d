"""The ranking and the Pareto front: the right order."""

import dataclasses

import pytest
from sample_points import ACCURACY, compared, point

from experiments.comparison import ranking
from experiments.comparison.points import HISTORY
from experiments.config import metrics


def test_the_best_is_first_and_what_has_no_rank_is_last():
    points = [
        point(status="failed", reason="it broke", a=1),
        point(0.7, status="pruned", a=2),
        point(0.8, a=3),
        point(float("nan"), a=4),
        point(0.9, a=5),
        point(0.75, status="pruned", a=6),
        point(status="killed", a=7),
        point(0.8, a=3, name="an equal"),
    ]
    rows = ranking.table(points, [ACCURACY])
    assert rows["a"].tolist() == ["5", "3", "3", "4", "6", "2", "7", "1"]
    assert rows["place"].tolist()[:3] == [1, 2, 3] and rows["place"].isna().sum() == 5
    assert rows["name"].tolist()[1:3] == ["a=3", "an equal"]
    assert rows[ACCURACY].tolist()[:3] == [0.9, 0.8, 0.8] and rows[ACCURACY].tolist()[4:6] == [0.75, 0.7]
    assert rows.loc[0, ["kept epoch", "epochs", "parameters", "seconds"]].tolist() == [2, 3, 1000, 5.0]
    assert rows["seconds"].tolist()[4] == 4.5  # it has no sum: its epochs
    assert rows["reason"].tolist()[-1] == "it broke"


def test_it_states_how_predictions_were_made():
    def statement(*ways):
        return compared([point(0.9, **{"evaluation.tta": way}) for way in ways]).statement

    assert statement("flip", "flip").endswith("Every prediction is the mean over 2 views of its image.")
    assert "views" not in statement("none") + statement("flip", "none")


def test_the_weights_that_are_kept_rank():
    def keeping(epoch, value):
        each = point(value, a=value)
        return dataclasses.replace(each, metrics={**each.metrics, **({"kept/epoch": epoch} if epoch else {})})

    # the best epoch is the second one; the third is worse by 0.05
    points = [keeping(3, 0.9), keeping(2, 0.87), keeping(None, 0.86)]  # the last one is of an older version
    rows = ranking.table(points, [ACCURACY])
    assert rows["a"].tolist() == ["0.87", "0.86", "0.9"] and rows[ACCURACY].tolist() == pytest.approx(
        [0.87, 0.86, 0.85]
    )
    assert rows["kept epoch"].tolist() == [2, 2, 3]


def test_a_point_has_the_history_of_what_is_watched_or_ranked_by():
    per_epoch = {name for name in (*metrics.MONITORS, *metrics.OBJECTIVES) if name in metrics.EPOCH_METRICS}
    assert {*HISTORY} == {*per_epoch, "epoch_seconds"}


def test_lower_cost_is_better():
    points = [point(0.5, a=1, seconds=9), point(0.5, a=2, seconds=3), point(0.5, a=3, seconds=float("inf"))]
    assert ranking.table(points, ["seconds"])["a"].tolist() == ["2", "1", "3"]
    assert ranking.table([point(0.5, a=1), point(0.9, a=2)], ["val/loss"])["a"].tolist() == ["2", "1"]


def test_pareto_front():
    values = [(0.9, 10), (0.8, 5), (0.8, 6), (0.7, 5), (0.6, 1), (0.95, 30), (0.5, float("inf"))]
    points = [point(accuracy, a=place, seconds=seconds) for place, (accuracy, seconds) in enumerate(values)]
    front = ranking.pareto([*points, point(status="failed", a=9)], [ACCURACY, "seconds"])
    assert [each.name for each in front] == ["a=5", "a=0", "a=1", "a=4"]
