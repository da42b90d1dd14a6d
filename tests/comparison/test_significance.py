"""Seeds: the right intervals and the right verdicts."""

import numpy as np
import pytest
from sample_points import ACCURACY, grid, point, written
from scipy import stats

from experiments.comparison import significance


def test_groups_over_seeds():
    rows = significance.over_seeds(grid({8: [0.5, 0.6, 0.7], 16: [0.8, 0.9, None], 32: [0.55, None, None]}), ACCURACY)
    assert rows["group"].tolist() == ["filters=16", "filters=8", "filters=32"]
    assert rows["n"].tolist() == [2, 3, 1]
    assert rows["mean"].tolist() == pytest.approx([0.85, 0.6, 0.55])
    assert rows["sd"].tolist() == pytest.approx([0.1 / 2**0.5, 0.1, np.nan], nan_ok=True)
    # quantiles of t from a printed table: 12.706 for one degree of freedom, 4.303 for two
    assert rows["low"].tolist() == pytest.approx(
        [0.85 - 12.706 * 0.05, 0.6 - 4.303 * 0.1 / 3**0.5, np.nan], 1e-3, nan_ok=True
    )
    assert rows["high"].tolist()[1] == pytest.approx(0.6 + 4.303 * 0.1 / 3**0.5, 1e-3)


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
        raw.append(2 * stats.t.sf(abs(apart.mean()) / error, 3))
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


def test_the_correction_is_holms():
    # Holm by hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, never below the one before
    assert significance.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm(np.array([0.9, np.nan, 0.8])) == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_only_shared_seeds_count():
    rows = significance.differences(
        grid({8: [None, 0.5, 0.6, 0.7], 16: [0.1, 0.7, 0.9, None]}, seeds=(1, 2, 3, 4)), ACCURACY
    )
    assert rows["first"].tolist() == ["filters=8"] and rows["seeds"].tolist() == [2]
    assert rows["difference"].tolist() == pytest.approx([-0.25])


def test_no_variance_is_no_proof(tmp_path):
    points = grid({8: [0.5, 0.6, 0.7], 16: [0.5, 0.6, 0.7], 32: [0.6, 0.7, 0.8]})
    rows = significance.differences(points, ACCURACY).set_index(["first", "second"])
    assert rows.loc[("filters=16", "filters=8"), ["p", "verdict"]].tolist() == [1, significance.NOT_SIGNIFICANT]
    assert rows.loc[("filters=32", "filters=8"), "verdict"] == significance.UNTESTABLE
    page = written(tmp_path, points)
    assert significance.UNTESTABLE in page and "nan" not in page.split("Is the difference")[1].split("<svg")[0]


def test_many_groups_are_compared_with_the_best():
    rng = np.random.default_rng(0)
    rows = significance.differences(grid({filters: rng.random(3) for filters in range(9)}), ACCURACY)
    assert len(rows) == 8 and rows["first"].nunique() == 1
    assert len(significance.differences(grid({filters: rng.random(3) for filters in range(8)}), ACCURACY)) == 28
