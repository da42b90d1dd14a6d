"""Configurations with several seeds or folds -> mean, deviation and interval, and which differences are significant."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.comparison.configurations import LEVEL, configuration_keys, configurations, repeated
from experiments.comparison.points import Point, sort_key
from experiments.config.metrics import at_most

SIGNIFICANT, NOT_SIGNIFICANT = "significant", "not significant"
UNTESTABLE = "the same in every repetition, so it cannot be tested"
SEEDS = 3  # repetitions, at least, for an interval or a test: two have intervals 12.7 standard errors wide
TOO_FEW = f"Intervals and tests need at least {SEEDS} seeds or folds for each configuration."
ALL_PAIRS = 8  # configurations, at most, to show every pair; with more, those with the best one


class Spread(NamedTuple):
    """Mean and spread of a metric over repetitions.

    sd (with n - 1) is NaN for a single repetition; low and high, the 95 % interval of the mean by Student's t within the range
    of the metric, are NaN below `SEEDS`.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Collection[float], metric: str) -> Spread:
        """Of the values of at least one repetition."""
        from scipy import stats

        n, array = len(values), np.array(list(values))
        mean, sd = float(array.mean()), float(array.std(ddof=1)) if n > 1 else math.nan
        half = float(stats.t.interval(LEVEL, n - 1)[1]) * sd / math.sqrt(n) if n >= SEEDS else math.nan
        low, high = np.clip((mean - half, mean + half), 0, at_most(metric))
        return cls(n, mean, sd, float(low), float(high))


def over_seeds(points: Sequence[Point], objective: str, *others: str) -> pd.DataFrame | None:
    """One row per configuration with a value, the best first; None if none has several repetitions.

    Columns: group (its name), the settings in which configurations differ, n (repetitions that finished), started, mean, sd, low and
    high (see `Spread`), and the means of other metrics. A repetition is a seed, a fold, or a pair of both.
    """
    found, keys = configurations(points, objective), configuration_keys(points)
    if not repeated(found):
        return None
    rows = []
    for group in found:
        if values := group.values(objective).values():
            n, *spread = Spread.of(values, objective)
            settings = [group.settings.get(key) for key in keys]
            rows.append([group.name, *settings, n, group.started, *spread, *map(group.value, others)])
    return pd.DataFrame(rows, columns=["group", *keys, "n", "started", *Spread._fields[1:], *others])


def differences(points: Sequence[Point], objective: str) -> pd.DataFrame | None:
    """One row per pair of configurations that share at least `SEEDS` seeds or folds: is their difference significant?

    Paired t test over seeds and folds; p is corrected for the number of pairs after Holm, "A simple sequentially rejective multiple
    test procedure", Scandinavian Journal of Statistics, 1979.

    Columns: first (the better mean), second, seeds (shared seeds and folds), difference (first - second), low and high (the 95 %
    interval, not corrected), p (corrected) and verdict. If the difference is always the same, there is no
    variance to test against: p is 1 if it is zero, else missing, with the verdict `UNTESTABLE`. None without pairs.
    """
    groups = configurations(points, objective)
    if not repeated(groups):
        return None
    groups.sort(key=lambda group: sort_key(group.value(objective), objective))
    found = [(group.name, measured) for group in groups if (measured := group.values(objective))]
    seeds = list(dict.fromkeys(seed for _, measured in found for seed in measured))
    values = np.full((len(found), len(seeds)), math.nan)
    for row, (_, measured) in enumerate(found):
        values[row, [seeds.index(seed) for seed in measured]] = list(measured.values())
    first, second = np.triu_indices(len(found), 1)
    shared = np.isfinite(values[first] - values[second]).sum(axis=1)
    first, second = (index[shared >= SEEDS] for index in (first, second))
    if not len(first):
        return None
    names = np.array([name for name, _ in found], dtype=object)
    tests = dict(zip(("difference", "low", "high", "p"), _paired(values[first], values[second])))
    frame = pd.DataFrame({"first": names[first], "second": names[second], "seeds": shared[shared >= SEEDS], **tests})
    frame["p"] = holm(frame["p"].to_numpy())
    frame["verdict"] = np.select(
        [frame["p"].isna(), frame["p"] < 1 - LEVEL], [UNTESTABLE, SIGNIFICANT], default=NOT_SIGNIFICANT
    )
    return frame


def with_the_best(differences: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """The rows of `differences` to show: all, or with more than `ALL_PAIRS` configurations those of the first of `over_seeds`."""
    if len(groups) <= ALL_PAIRS:
        return differences
    return differences[(differences[["first", "second"]] == groups["group"].iloc[0]).any(axis=1)]


def _paired(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean difference, low and high end of its interval, and p of the paired t test: (pairs,) each.

    Args:
        first: (pairs, seeds); NaN where a seed is missing.
        second: the same.
    """
    from scipy import stats

    difference = first - second
    seeds = np.isfinite(difference).sum(axis=1)
    mean = np.nanmean(difference, axis=1)
    error = np.nanstd(difference, axis=1, ddof=1) / np.sqrt(seeds)
    rounding = 1e-9 * np.nanmax(np.abs([first, second]), axis=(0, 2))
    constant = np.nanmax(difference, axis=1) - np.nanmin(difference, axis=1) <= rounding
    error[constant] = math.nan
    p = 2 * stats.t.sf(np.abs(mean) / error, seeds - 1)
    p[constant & (np.abs(mean) <= rounding)] = 1
    half = np.where(constant, 0, stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * error)
    return mean, mean - half, mean + half, p


def holm(p: np.ndarray) -> np.ndarray:
    """p values, (tests,), corrected so that the probability of any wrong verdict is that of one test (Holm, 1979).

    A missing value stays missing; it counts, because that pair was looked at, too.
    """
    corrected = np.full(len(p), math.nan)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]  # missing ones are sorted last
    left = len(p) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * left), 1)
    return corrected
