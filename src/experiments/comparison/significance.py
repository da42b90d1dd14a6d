"""Points that differ in their seed or fold -> mean and deviation over these repetitions, and which differences are significant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.comparison.points import Point, ranked, swept_keys, varying_keys
from experiments.config.keys import key_labels, key_of, repeats, repetition
from experiments.config.metrics import at_most, higher_is_better

SIGNIFICANT, NOT_SIGNIFICANT = "significant", "not significant"
UNTESTABLE = "the same in every repetition, so it cannot be tested"
SEEDS = 3  # repetitions, at least, for an interval or a test: two have intervals 12.7 standard errors wide
TOO_FEW = f"Intervals and tests need at least {SEEDS} seeds or folds for each setting."
WORDS = {"seed": "seeds", "data.fold": "folds"}  # the keys that repeat a setting, in the plural
ALL_PAIRS = 8  # groups, at most, to show every pair; with more groups, those with the best one
LEVEL = 0.95  # of the intervals; one in 20 tables may contain a wrong "significant"


@dataclass(frozen=True)
class Group:
    """Points with the same settings except for seed and fold, of which at least one finished.

    Attributes:
        settings: values of the varying keys without seed and fold; None if a point has no such setting.
        by_seed: seed and fold -> values of the objective; more than one if the same ones were run again.
        started: the number of seeds and folds of all its points, also of those that failed or are running.
    """

    name: str
    settings: tuple[str | None, ...]
    by_seed: dict[tuple[str, ...], list[float]]
    started: int

    @property
    def values(self) -> np.ndarray:
        """The objective per seed and fold, (repetitions,): runs of the same are not independent, so their mean counts once."""
        return np.array([np.mean(values) for values in self.by_seed.values()])

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def groups(points: Sequence[Point], objective: str) -> list[Group]:
    """The finished points, grouped by all varying settings except seed and fold; the best mean first."""
    keys = _keys(points)
    short = key_labels([key for key in swept_keys(points) if not repeats(key)])
    seeds: dict[tuple[str | None, ...], set[tuple[str, ...]]] = {}
    for point in points:
        seeds.setdefault(_without_seed(point, keys), set()).add(repetition(_settings(point)))
    found: dict[tuple[str | None, ...], Group] = {}
    for point in ranked(points, objective):
        value = point.value(objective)
        if value is None or not math.isfinite(value):
            continue
        settings = _without_seed(point, keys)
        words = [f"{short[key]}={value}" for key, value in zip(keys, settings) if key in short and value is not None]
        new = Group(" ".join(words) or "all", settings, {}, len(seeds[settings]))
        found.setdefault(settings, new).by_seed.setdefault(repetition(point.settings), []).append(value)
    return sorted(found.values(), key=lambda group: group.mean, reverse=higher_is_better(objective))


def _keys(points: Sequence[Point]) -> list[str]:
    return [key for key in varying_keys(points) if not repeats(key)]


def _settings(point: Point) -> Mapping[str, str]:
    """The settings of a point; if it failed before they were known, its overrides."""
    return point.settings or {key_of(text): text.partition("=")[2] for text in point.overrides}


def _without_seed(point: Point, keys: Sequence[str]) -> tuple[str | None, ...]:
    return tuple(_settings(point).get(key) for key in keys)


def repeated_by(points: Sequence[Point]) -> str:
    """What repeats the settings of these points: seeds, folds, or both."""
    varying = varying_keys(points)
    return " and ".join(word for key, word in WORDS.items() if key in varying) or "seeds"


def unfinished_seeds(points: Sequence[Point], objective: str) -> str:
    """A sentence if not all seeds or folds of the best point's setting finished, else nothing."""
    keys, best = _keys(points), ranked(points, objective)[:1]
    for group in groups(points, objective) if best else ():
        if group.settings == _without_seed(best[0], keys) and len(group.by_seed) < group.started:
            repetitions = f"{len(group.by_seed)} of {group.started} {repeated_by(points)}"
            return f"Only {repetitions} finished for the setting of the best point."
    return ""


def over_seeds(points: Sequence[Point], objective: str) -> pd.DataFrame | None:
    """One row per group, the best mean first, those with unfinished repetitions last; None if no group has two.

    Columns: group (its settings in short), the varying settings, n (repetitions that finished), started, mean, sd (with
    n - 1), low and high (the 95 % interval of the mean by Student's t, within the range of the objective). sd is missing
    for a single repetition, low and high are missing below `SEEDS`. A repetition is a seed, a fold, or a pair of both.
    """
    from scipy import stats

    found = groups(points, objective)
    if not any(group.started > 1 for group in found):
        return None
    rows = []
    for group in sorted(found, key=lambda group: len(group.values) < group.started):
        n = len(group.values)
        sd = float(group.values.std(ddof=1)) if n > 1 else math.nan
        half = float(stats.t.interval(LEVEL, n - 1)[1]) * sd / math.sqrt(n) if n >= SEEDS else math.nan
        low, high = np.clip((group.mean - half, group.mean + half), 0, at_most(objective))
        rows.append([group.name, *group.settings, n, group.started, group.mean, sd, float(low), float(high)])
    return pd.DataFrame(rows, columns=["group", *_keys(points), "n", "started", "mean", "sd", "low", "high"])


def differences(points: Sequence[Point], objective: str) -> pd.DataFrame | None:
    """One row per pair of groups that share at least `SEEDS` seeds or folds: is their difference significant?

    Paired t test over seeds and folds; p is corrected for the number of pairs after Holm, "A simple sequentially rejective multiple
    test procedure", Scandinavian Journal of Statistics, 1979.

    Columns: first (the better mean), second, seeds (shared seeds and folds), difference (first - second), low and high (the 95 %
    interval, not corrected), p (corrected) and verdict. If the difference is always the same, there is no
    variance to test against: p is 1 if it is zero, else missing, with the verdict `UNTESTABLE`. None without pairs.
    """
    found = groups(points, objective)
    seeds = list(dict.fromkeys(seed for group in found for seed in group.by_seed))
    values = np.full((len(found), len(seeds)), math.nan)
    for row, group in enumerate(found):
        values[row, [seeds.index(seed) for seed in group.by_seed]] = group.values
    first, second = np.triu_indices(len(found), 1)
    shared = np.isfinite(values[first] - values[second]).sum(axis=1)
    first, second = (index[shared >= SEEDS] for index in (first, second))
    if not len(first):
        return None
    names = np.array([group.name for group in found], dtype=object)
    tests = dict(zip(("difference", "low", "high", "p"), _paired(values[first], values[second])))
    frame = pd.DataFrame({"first": names[first], "second": names[second], "seeds": shared[shared >= SEEDS], **tests})
    frame["p"] = holm(frame["p"].to_numpy())
    frame["verdict"] = np.select(
        [frame["p"].isna(), frame["p"] < 1 - LEVEL], [UNTESTABLE, SIGNIFICANT], default=NOT_SIGNIFICANT
    )
    return frame


def with_the_best(differences: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """The rows of `differences` to show: all, or with more than `ALL_PAIRS` groups those of the first of `over_seeds`."""
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
