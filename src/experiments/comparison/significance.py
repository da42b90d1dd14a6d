"""Points that differ in their seed -> mean and deviation over seeds, and which differences are significant."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from experiments.comparison.points import Point, ranked, swept_keys, varying_keys
from experiments.config.keys import key_labels, repeats, repetition
from experiments.config.metrics import at_most, higher_is_better

SIGNIFICANT, NOT_SIGNIFICANT = "significant", "not significant"
UNTESTABLE = "the same with every seed, so it cannot be tested"
ALL_PAIRS = 8  # groups, at most, to compare every pair; with more groups, each is compared with the best one
LEVEL = 0.95  # of the intervals; one in 20 tables may contain a wrong "significant"


@dataclass(frozen=True)
class Group:
    """Finished points with the same settings except for the seed.

    Attributes:
        settings: values of the varying keys without the seed; None if a point has no such setting.
        by_seed: seed -> values of the objective; usually one.
    """

    name: str
    settings: tuple[str | None, ...]
    by_seed: dict[tuple[str, ...], list[float]] = field(default_factory=dict)

    @property
    def values(self) -> np.ndarray:
        """The objective of all its points, (points,)."""
        return np.concatenate(list(self.by_seed.values()))

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def groups(points: Sequence[Point], objective: str) -> list[Group]:
    """The finished points, grouped by all varying settings except the seed; the best mean first."""
    keys = [key for key in varying_keys(points) if not repeats(key)]
    short = key_labels([key for key in swept_keys(points) if not repeats(key)])
    found: dict[tuple[str | None, ...], Group] = {}
    for point in ranked(points, objective):
        value = point.value(objective)
        if value is None or not math.isfinite(value):
            continue
        settings = tuple(point.settings.get(key) for key in keys)
        words = [f"{short[key]}={value}" for key, value in zip(keys, settings) if key in short and value is not None]
        group = found.setdefault(settings, Group(" ".join(words) or "all", settings))
        group.by_seed.setdefault(repetition(point.settings), []).append(value)
    return sorted(found.values(), key=lambda group: group.mean, reverse=higher_is_better(objective))


def over_seeds(points: Sequence[Point], objective: str) -> pd.DataFrame | None:
    """One row per group, the best mean first; None if no group has two seeds.

    Columns: group (its settings in short), the varying settings, n, mean, sd (with n - 1), low and high (the 95 % interval
    of the mean by Student's t, within the range of the objective). sd, low and high are missing for a single run.
    """
    from scipy import stats

    found = groups(points, objective)
    if not any(len(group.by_seed) > 1 for group in found):
        return None
    rows = []
    for group in found:
        n = len(group.values)
        sd = float(group.values.std(ddof=1)) if n > 1 else math.nan
        half = float(stats.t.interval(LEVEL, n - 1)[1]) * sd / math.sqrt(n) if n > 1 else math.nan
        low, high = np.clip((group.mean - half, group.mean + half), 0, at_most(objective))
        rows.append([group.name, *group.settings, n, group.mean, sd, float(low), float(high)])
    keys = [key for key in varying_keys(points) if not repeats(key)]
    return pd.DataFrame(rows, columns=["group", *keys, "n", "mean", "sd", "low", "high"])


def differences(points: Sequence[Point], objective: str) -> pd.DataFrame | None:
    """One row per pair of groups that share at least two seeds: is their difference significant?

    Paired t test over seeds; p is corrected for the number of pairs after Holm, "A simple sequentially rejective multiple
    test procedure", Scandinavian Journal of Statistics, 1979. With more than `ALL_PAIRS` groups, each is compared with the
    best only; the best was selected by the same numbers, so its advantage is slightly overestimated.

    Columns: first (the better mean), second, seeds (shared), difference (first - second), low and high (the 95 %
    interval, not corrected), p (corrected) and verdict. If the difference is the same with every seed, there is no
    variance to test against: p is 1 if it is zero, else missing, with the verdict `UNTESTABLE`. None without pairs.
    """
    found = groups(points, objective)
    pairs = itertools.combinations(found, 2) if len(found) <= ALL_PAIRS else ((found[0], other) for other in found[1:])
    rows = []
    for first, second in pairs:
        seeds = [seed for seed in first.by_seed if seed in second.by_seed]
        if len(seeds) > 1:
            values = (np.array([np.mean(group.by_seed[seed]) for seed in seeds]) for group in (first, second))
            rows.append([first.name, second.name, len(seeds), *_paired(*values)])
    if not rows:
        return None
    frame = pd.DataFrame(rows, columns=["first", "second", "seeds", "difference", "low", "high", "p"])
    frame["p"] = holm(frame["p"].to_numpy())
    frame["verdict"] = np.select(
        [frame["p"].isna(), frame["p"] < 1 - LEVEL], [UNTESTABLE, SIGNIFICANT], default=NOT_SIGNIFICANT
    )
    return frame


def _paired(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """Mean difference, low and high end of its interval, and p of the paired t test, from values (seeds,) of each."""
    from scipy import stats

    difference = first - second
    mean, rounding = float(difference.mean()), 1e-9 * float(np.abs([first, second]).max())
    if np.ptp(difference) <= rounding:
        return mean, mean, mean, 1.0 if abs(mean) <= rounding else math.nan
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(LEVEL)
    return mean, float(low), float(high), float(test.pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """p values, (tests,), corrected so that the probability of any wrong verdict is that of one test (Holm, 1979).

    A missing value is not a test: it stays missing and does not count.
    """
    corrected = np.full(len(p), math.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # missing ones are sorted last
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected
