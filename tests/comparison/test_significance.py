"""Seeds: the right intervals and the right verdicts."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sample_points import ACCURACY, compared, grid, point, written
from scipy import stats

from experiments.comparison import significance, terminal
from experiments.comparison.points import Point


def test_groups_over_seeds():
    rows = significance.over_seeds(grid({8: [0.5, 0.6, 0.7], 16: [0.8, 0.9, None], 32: [0.55, None, None]}), ACCURACY)
    assert rows["group"].tolist() == ["filters=16", "filters=8", "filters=32"]
    assert rows["n"].tolist() == [2, 3, 1]
    assert rows["mean"].tolist() == pytest.approx([0.85, 0.6, 0.55])
    assert rows["sd"].tolist() == pytest.approx([0.1 / 2**0.5, 0.1, np.nan], nan_ok=True)
    # 4.303: the quantile of t for two degrees of freedom, from a printed table; two seeds are too few for an interval
    half = 4.303 * 0.1 / 3**0.5
    assert rows["low"].tolist() == pytest.approx([np.nan, 0.6 - half, np.nan], 1e-3, nan_ok=True)
    assert rows["high"].tolist() == pytest.approx([np.nan, 0.6 + half, np.nan], 1e-3, nan_ok=True)


def test_runs_of_one_seed_count_once():
    again = [point(0.5, filters=8, seed=1), *grid({8: [0.7, 0.8, 0.9], 16: [0.5, 0.55, 0.6]})]
    rows = significance.over_seeds(again, ACCURACY)
    once = significance.over_seeds(grid({8: [0.6, 0.8, 0.9], 16: [0.5, 0.55, 0.6]}), ACCURACY)
    assert rows["n"].tolist() == [3, 3] and rows.equals(once)
    assert significance.over_seeds([point(0.5, filters=8, seed=1)] * 4, ACCURACY) is None


def one_of_three(status):
    """Points of which the best one has a setting whose two other seeds have this status."""
    others = [point(status=status, filters=16, seed=seed) for seed in (2, 3)]
    return [*grid({8: [0.6, 0.7, 0.8], 16: [0.9]}), *others]


@pytest.mark.parametrize("status", ["failed", "killed", "running", "pruned"])
def test_the_seeds_that_finished_are_counted(status, capsys, tmp_path):
    points = one_of_three(status)
    rows = significance.over_seeds(points, ACCURACY).set_index("group")
    assert rows.loc["filters=16", ["n", "started"]].tolist() == [1, 3]
    assert rows.loc["filters=8", ["n", "started"]].tolist() == [3, 3]
    terminal.show_comparison(compared(points), "")
    out = capsys.readouterr().out
    assert "so the lower end of an interval ranks" in out
    assert "1 of 3" in out and "<td>1 of 3</td>" in written(tmp_path, points)


def test_it_is_stated_if_seeds_of_the_winner_are_missing():
    points = [*grid({8: [0.6, 0.7, 0.8], 16: [0.9, 0.91, None]}), point(status="failed", filters=16, seed=3)]
    assert "Only 2 of 3 seeds finished for the best configuration." in compared(points).statement
    assert "finished" not in compared(grid({8: [0.6, 0.7], 16: [0.9, 0.8]})).statement


def test_a_run_that_failed_before_it_had_settings_was_started():
    dead = Point("", "", "failed", {}, {}, {}, "out of memory", ["filters=16", "seed=2"])
    rows = significance.over_seeds([*grid({8: [0.6, 0.7], 16: [0.9]}), dead], ACCURACY)
    assert set(rows["group"]) == {"filters=8", "filters=16"} and rows["started"].tolist() == [2, 2]


def test_two_seeds_are_too_few(tmp_path, capsys):
    points = grid({filters: [0.5 + filters, 0.6] for filters in range(6)})
    assert significance.differences(points, ACCURACY) is None
    page = written(tmp_path, points)
    assert significance.TOO_FEW in page and "significant?" not in page and "95 % interval</button>" not in page
    terminal.show_comparison(compared(points), "")
    assert significance.TOO_FEW in capsys.readouterr().out
    assert significance.TOO_FEW not in written(tmp_path, grid({8: [0.5, 0.6, 0.8], 16: [0.4, 0.2, 0.3]}))


def test_without_seeds_nothing_is_tested():
    points = [point(0.5, filters=8, seed=1), point(0.6, filters=16, seed=2)]
    assert significance.over_seeds(points, ACCURACY) is None and significance.differences(points, ACCURACY) is None


def test_differences_are_paired_by_seed_and_corrected():
    values = {8: [0.60, 0.70, 0.80, 0.75], 16: [0.62, 0.725, 0.82, 0.773], 32: [0.59, 0.74, 0.78, 0.80]}
    rows = significance.differences(grid(values, seeds=(1, 2, 3, 4)), ACCURACY)
    pairs = [(16, 32), (16, 8), (32, 8)]  # by mean
    assert list(zip(rows["first"], rows["second"])) == [(f"filters={a}", f"filters={b}") for a, b in pairs]
    raw = []
    for row, (first, second) in enumerate(pairs):
        apart = np.subtract(values[first], values[second])
        error = apart.std(ddof=1) / 2
        raw.append(stats.ttest_rel(values[first], values[second]).pvalue)
        assert rows["difference"][row] == pytest.approx(apart.mean())
        assert rows["high"][row] - rows["low"][row] == pytest.approx(2 * 3.1824463 * error, 1e-6)
    small, middle, large = sorted(raw)
    expected = {small: 3 * small, middle: max(3 * small, 2 * middle), large: max(3 * small, 2 * middle, large)}
    assert rows["p"].tolist() == pytest.approx([min(expected[p], 1) for p in raw])
    assert rows["verdict"].tolist() == [
        significance.NOT_SIGNIFICANT,
        significance.SIGNIFICANT,
        significance.NOT_SIGNIFICANT,
    ]


def folded(values, **settings):
    """{filters: an accuracy per fold} -> points."""
    return [
        point(value, filters=filters, data__folds=len(row), data__fold=fold, seed=888, **settings)
        for filters, row in values.items()
        for fold, value in enumerate(row)
    ]


# folds differ in difficulty by 0.1, settings by 0.02 in every fold
FOLDED = {8: [0.60, 0.71, 0.80, 0.90, 0.69], 16: [0.62, 0.728, 0.823, 0.919, 0.712]}


def test_settings_are_paired_by_fold(tmp_path, capsys):
    points = folded(FOLDED)
    assert stats.ttest_ind(FOLDED[8], FOLDED[16]).pvalue > 0.7  # without pairs there is nothing to be seen
    for mixed in (points, points[::-1], [*points[::2], *points[1::2]]):
        (row,) = significance.differences(mixed, ACCURACY).to_dict("records")
        assert row["verdict"] == significance.SIGNIFICANT and row["seeds"] == 5
        assert row["p"] == pytest.approx(stats.ttest_rel(FOLDED[8], FOLDED[16]).pvalue)
    rows = significance.over_seeds(points, ACCURACY)
    assert rows["group"].tolist() == ["filters=16", "filters=8"] and rows["n"].tolist() == [5, 5]
    assert rows["mean"].tolist() == pytest.approx([np.mean(FOLDED[16]), np.mean(FOLDED[8])])
    low, high = stats.t.interval(0.95, 4, np.mean(FOLDED[8]), stats.sem(FOLDED[8]))
    assert (rows["low"][1], rows["high"][1]) == pytest.approx((low, min(high, 1)))
    page = written(tmp_path, points)
    assert (
        "over folds, with its standard deviation" in page
        and "Paired t test over the folds" in page
        and "seeds" not in page.split("Ranking")[1]
    )
    terminal.show_comparison(compared(points), "")
    assert re.search(r"^ +configuration +folds +mean val/accuracy", capsys.readouterr().out, re.M)


def test_seeds_and_folds_repeat_together(tmp_path):
    points = [each for seed in (1, 2) for each in folded(FOLDED)]
    points = [
        replace(each, settings={**each.settings, "seed": str(1 + index // 10)}) for index, each in enumerate(points)
    ]
    (row,) = significance.differences(points, ACCURACY).to_dict("records")
    assert row["seeds"] == 10 and "over seeds and folds" in written(tmp_path, points)


def test_a_run_without_folds_has_the_seed_of_one_from_before_there_were_folds():
    before, now = ({8: [0.5, 0.6, 0.7]}, {16: [0.6, 0.7, 0.81]})
    points = [*grid(before), *(replace(each, settings={**each.settings, "data.fold": "None"}) for each in grid(now))]
    assert significance.differences(points, ACCURACY)["seeds"].tolist() == [3]


def test_the_correction_is_holms():
    # Holm by hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, never below the one before
    assert significance.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm(np.array([0.9, np.nan, 0.8])) == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_only_shared_seeds_count():
    rows = significance.differences(
        grid({8: [None, 0.5, 0.6, 0.8, 0.7], 16: [0.1, 0.7, 0.9, 0.85, None]}, seeds=(1, 2, 3, 4, 5)), ACCURACY
    )
    assert rows["first"].tolist() == ["filters=8"] and rows["seeds"].tolist() == [3]
    assert rows["difference"].tolist() == pytest.approx([-0.55 / 3])
    assert rows["p"].tolist() == pytest.approx([stats.ttest_rel([0.5, 0.6, 0.8], [0.7, 0.9, 0.85]).pvalue])


def test_no_variance_is_no_proof(tmp_path):
    points = grid({8: [0.5, 0.6, 0.7], 16: [0.5, 0.6, 0.7], 32: [0.6, 0.7, 0.8]})
    rows = significance.differences(points, ACCURACY).set_index(["first", "second"])
    assert rows.loc[("filters=16", "filters=8"), ["p", "verdict"]].tolist() == [1, significance.NOT_SIGNIFICANT]
    assert rows.loc[("filters=32", "filters=8"), "verdict"] == significance.UNTESTABLE
    page = written(tmp_path, points)
    assert significance.UNTESTABLE in page and "nan" not in page.split("Is the difference")[1].split("<svg")[0]


def test_of_many_groups_the_page_shows_the_pairs_with_the_best_corrected_for_all(tmp_path):
    rng = np.random.default_rng(0)
    points = grid({filters: rng.random(3) for filters in range(9)})
    rows = significance.differences(points, ACCURACY)
    assert len(rows) == 36
    shown = significance.with_the_best(rows, significance.over_seeds(points, ACCURACY))
    assert len(shown) == 8 and shown["first"].nunique() == 1
    page = written(tmp_path, points).split("Is the difference")[1]
    assert "corrected for 36 pairs" in page and page.split("</tbody>")[0].count("<tr>") == 8 + 1
    points = grid({filters: rng.random(3) for filters in range(8)})
    rows = significance.differences(points, ACCURACY)
    assert len(significance.with_the_best(rows, significance.over_seeds(points, ACCURACY))) == len(rows) == 28


SIZES = ((20, 3), (50, 3), (100, 5))  # settings, seeds


def false_tables(settings, seeds, tables):
    """How many of these simulated tables have a significant difference, where there is none.

    Seeds have an effect of their own, and each run has noise.
    """
    rng, wrong = np.random.default_rng(settings), 0
    for _ in range(tables):
        values = 0.7 + 0.01 * rng.normal(size=seeds) + 0.01 * rng.normal(size=(settings, seeds))
        rows = significance.differences(grid(dict(enumerate(values)), seeds=range(seeds)), ACCURACY)
        wrong += significance.SIGNIFICANT in set(rows["verdict"])
    return wrong


@pytest.mark.numbers
@pytest.mark.parametrize(("settings", "seeds"), SIZES)
def test_where_nothing_differs_few_tables_have_a_significant_difference(settings, seeds):
    """`python tests/comparison/test_significance.py` simulates 2,000 tables of each size."""
    assert false_tables(settings, seeds, 20) <= stats.binom.ppf(0.99, 20, 0.05)


if __name__ == "__main__":
    for size in SIZES:
        print(*size, f"{false_tables(*size, 2000) / 2000:.2%}", flush=True)
