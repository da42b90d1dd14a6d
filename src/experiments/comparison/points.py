"""The points of a comparison: runs with their settings and results.

A point is one run as it is compared with others: a trial of a search, a run of a grid, or a single run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from experiments.config.keys import CHOICES, key_labels, role_of
from experiments.config.metrics import MONITORS, higher_is_better

Status = Literal["finished", "pruned", "failed", "killed", "running"]
HISTORY = (*MONITORS, "epoch_seconds")  # the metrics per epoch that are compared


@dataclass(frozen=True)
class Point:
    """One run of a comparison.

    Attributes:
        run_id: MLflow's id; empty if the run failed before it had one; "none" without MLflow.
        name: short, made of what differs (`filters=64 seed=2`).
        settings: the flattened configuration as text, such as {"model.filters": "64", "seed": "2"}.
        history: the values of each metric of `HISTORY`, one per epoch.
        metrics: the final metrics, such as best/epoch, parameters and seconds; test/... if it was evaluated on the test set.
        reason: why it failed, or after which epoch it was pruned; else empty.
        overrides: of the command that started it.
    """

    run_id: str
    name: str
    status: Status
    settings: Mapping[str, str]
    history: Mapping[str, Sequence[float]]
    metrics: Mapping[str, float]
    reason: str = ""
    overrides: Sequence[str] = ()

    def value(self, objective: str) -> float | None:
        """The value of an objective: that of the best epoch for a metric per epoch, else that of the final metric.

        None if the run did not get that far.
        """
        if objective in self.history:
            values, best = self.history[objective], self.metrics.get("best/epoch", 0)
            return values[int(best) - 1] if 1 <= best <= len(values) else None  # false for NaN
        return self.metrics.get(objective)

    @property
    def epochs(self) -> int:
        """The number of epochs that were run."""
        return max(map(len, self.history.values()), default=0)

    @property
    def seconds(self) -> float:
        """The duration of the run; if it was not recorded, that of all epochs."""
        return self.metrics.get("seconds", math.fsum(self.history.get("epoch_seconds", ())))


def ranked(points: Iterable[Point], objective: str) -> list[Point]:
    """Finished points by their value, the best first; points of equal value by validation loss, then by name.

    Points whose value is not finite come last.
    """
    finished = ((point, point.value(objective)) for point in points if point.status == "finished")
    valued = [(_sort_key(value, objective), point) for point, value in finished if value is not None]
    return [
        point
        for _, point in sorted(
            valued, key=lambda row: (row[0], _sort_key(row[1].value("val/loss"), "val/loss"), row[1].name)
        )
    ]


def _sort_key(value: float | None, objective: str) -> float:
    """A number that is lower for better values; infinite if the value is not finite."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if higher_is_better(objective) else value


def varying_keys(points: Sequence[Point]) -> list[str]:
    """The settings in which points differ, in the order of the configuration, without paths, labels and the like."""
    keys = dict.fromkeys(key for point in points for key in point.settings)
    return [key for key in keys if role_of(key).distinguishes and len({p.settings.get(key) for p in points}) > 1]


def latest(points: Sequence[Point]) -> list[Point]:
    """The points without earlier ones of the same settings (run again after a change to the code), with unique names."""
    found = list({tuple(point.settings.get(key) for key in varying_keys(points)): point for point in points}.values())
    if len({point.name for point in found}) == len(found):
        return found
    words = key_labels(swept_keys(found))
    return [
        replace(point, name=" ".join(f"{word}={point.settings.get(key)}" for key, word in words.items()))
        for point in found
    ]


def swept_keys(points: Sequence[Point]) -> list[str]:
    """The varying settings without those that follow from another choice.

    `optimizer=adam,sgd` varies optimizer.name, and with it lr, momentum and others: if each name has only one lr, lr
    is left out. A key that is swept in addition to the choice stays. The name of a source also implies its `_target_`.
    """
    keys = varying_keys(points)
    return [key for key in keys if not any(_implied_by(points, choice, key) for choice in keys)]


def _implied_by(points: Sequence[Point], choice: str, key: str) -> bool:
    group, _, last = choice.rpartition(".")
    if last not in CHOICES or key in (choice, f"{group}.name") or not key.startswith(f"{group}."):
        return False
    pairs = {(point.settings.get(choice), point.settings.get(key)) for point in points}
    return len(pairs) == len({first for first, _ in pairs})
