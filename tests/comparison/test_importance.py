"""The importance of settings."""

import numpy as np
import pytest
from sample_points import ACCURACY, point

from experiments.comparison.importance import importance


def test_the_important_setting_is_found():
    pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    rows = [(10 ** rng.uniform(-5, -1), rng.random(), rng.choice(["adam", "sgd"])) for _ in range(40)]
    # half of all learning rates by their logarithm, but a hundredth of their range, are too low
    points = [
        point(0.6 + 0.1 * (rate > 1e-3) + 0.05 * rest, lr=rate, dropout=rest, kind=kind) for rate, rest, kind in rows
    ]
    fractions = importance(points, ACCURACY)
    assert next(iter(fractions)) == "lr" and fractions["lr"] > 0.8 and sum(fractions.values()) == pytest.approx(1)
    assert fractions == importance(points, ACCURACY)


def test_too_few_points_have_no_importance():
    points = [point(0.5 + 0.1 * a, a=a, b=a % 2) for a in range(4)]
    assert importance(points[:3], ACCURACY) is None
    assert importance([point(0.5 + 0.1 * a, a=a) for a in range(6)], ACCURACY) is None
    assert importance([point(0.5, a=a, b=a % 2) for a in range(6)], ACCURACY) is None


def test_seed_and_folds_are_no_settings():
    pytest.importorskip("optuna")
    points = [
        point(0.5 + 0.1 * fold + 0.02 * a + 0.01 * b, a=a, b=b, data__folds=3 + fold % 2, data__fold=fold, seed=seed)
        for a in range(3)
        for b in range(2)
        for fold in range(3)
        for seed in (1, 2)
    ]
    assert set(importance(points, ACCURACY)) == {"a", "b"}
