"""Points -> configurations: the points that differ only in what repeats a run (its seed, its fold), ranked by their mean."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.comparison.points import Point, sort_key, swept_keys, varying_keys
from experiments.config.keys import key_labels, key_of, repeats, repetition

LEVEL = 0.95  # of all intervals
WORDS = {"seed": "seeds", "data.fold": "folds"}  # the keys that repeat a configuration, in the plural


@dataclass(frozen=True)
class Configuration:
    """Points with the same settings except for seed and fold; it has what tables and figures read from a point.

    Attributes:
        name: of its point; if points are repetitions, made from the settings in which configurations differ.
        points: in the order they were run, also those that did not finish.
    """

    name: str
    points: tuple[Point, ...]

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings of one of its points: seed and fold are not those of the others."""
        return known_settings((self.finished or self.points)[0])

    @property
    def started(self) -> int:
        """The number of its repetitions, also of those that failed or are running."""
        return len({repetition(known_settings(point)) for point in self.points})

    @property
    def finished(self) -> list[Point]:
        return [point for point in self.points if point.status == "finished"]

    def values(self, metric: str) -> dict[tuple[str, ...], float]:
        """Seed and fold -> the value of a metric, if it is finite; runs of the same are not independent: their mean counts once."""
        found: dict[tuple[str, ...], list[float]] = {}
        for point in self.finished:
            value = point.value(metric)
            if value is not None and math.isfinite(value):
                found.setdefault(repetition(point.settings), []).append(value)
        return {repeated: statistics.fmean(values) for repeated, values in found.items()}

    def value(self, metric: str) -> float | None:
        """The mean of a metric over its repetitions; None if no repetition has a finite value."""
        values = self.values(metric)
        return statistics.fmean(values.values()) if values else None

    @property
    def seconds(self) -> float:
        """The mean duration of its finished runs; without one, the duration of the first one so far."""
        runs = self.finished or self.points[:1]
        return sum(point.seconds for point in runs) / len(runs)

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics that all its finished runs have: their means."""
        runs = [point.metrics for point in self.finished]
        shared = [name for name in runs[0] if all(name in metrics for metrics in runs)] if runs else []
        return {name: sum(metrics[name] for metrics in runs) / len(runs) for name in shared}


def configurations(points: Sequence[Point], objective: str) -> list[Configuration]:
    """All configurations of these points: those with a value by rank, then those that only finished, then the others.

    If no point is a repetition of another one, each is a configuration of its own.

    The mean decides. If the numbers of finished repetitions differ, the lower end of its 95 % interval decides (for a loss,
    the upper end), with one standard deviation for all: that within configurations, pooled over those with at least two.
    Equal values are ranked by the smaller standard error, then by validation loss, then by name.
    """
    keys = configuration_keys(points)
    found: dict[tuple[str | None, ...], list[Point]] = {}
    for point in points:
        settings = known_settings(point)
        found.setdefault(tuple(settings.get(key) for key in keys), []).append(point)
    labels = key_labels([key for key in swept_keys(points) if key in keys])
    groups = [Configuration(_name(group[0], labels), tuple(group)) for group in found.values()]
    if not repeated(groups):
        groups = [Configuration(point.name, (point,)) for point in points]
    width = _half_width([list(group.values(objective).values()) for group in groups])

    def key(group: Configuration) -> tuple[bool, bool, float, float, float, float, str]:
        values = list(group.values(objective).values())
        mean = sort_key(group.value(objective), objective)
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
        bound = mean + width / math.sqrt(max(len(values), 1))
        loss = sort_key(group.value("val/loss"), "val/loss")
        return not values, not group.finished, _rounded(bound), _rounded(mean), error, loss, group.name

    return sorted(groups, key=key)


def repeated(groups: Sequence[Configuration]) -> bool:
    """Whether a configuration has several repetitions."""
    return any(group.started > 1 for group in groups)


def configuration_keys(points: Sequence[Point]) -> list[str]:
    """The settings in which configurations differ: not those that repeat a run, and no other seed that has the value of `seed`.

    `'data.seed=${seed}' seed=1,2,3` repeats one configuration with other random numbers and another split.
    """
    known = [point.settings for point in points if point.settings]

    def follows(key: str) -> bool:
        return key.endswith(".seed") and all(settings.get(key) == settings.get("seed") for settings in known)

    return [key for key in varying_keys(points) if not repeats(key) and not follows(key)]


def repeated_by(points: Sequence[Point]) -> str:
    """What repeats the configurations of these points: seeds, folds, or both."""
    varying = varying_keys(points)
    return " and ".join(word for key, word in WORDS.items() if key in varying) or "seeds"


def known_settings(point: Point) -> Mapping[str, str]:
    """The settings of a point; if it failed before they were known, its overrides."""
    return point.settings or {key_of(text): text.partition("=")[2] for text in point.overrides}


def _name(point: Point, labels: Mapping[str, str]) -> str:
    settings = known_settings(point)
    return " ".join(f"{word}={settings[key]}" for key, word in labels.items() if key in settings) or "all points"


def _half_width(values: Sequence[Sequence[float]]) -> float:
    """Half the interval of a single repetition; 0 if all configurations have as many, because the mean decides then."""
    if len({len(row) for row in values if row}) < 2:
        return 0
    from scipy import stats  # 0.5 s

    degrees = sum(len(row) - 1 for row in values if row)
    squares = math.fsum(statistics.variance(row) * (len(row) - 1) for row in values if len(row) > 1)
    return float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(squares / degrees)


def _rounded(value: float) -> float:
    """Without the last digits, in which equal means differ, depending on the order of their summands."""
    return float(f"{value:.12g}")
