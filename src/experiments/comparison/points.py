"""What a comparison is made of: runs as points, each with its settings and what it reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from experiments.config.keys import CHOICES, key_labels, role_of
from experiments.config.metrics import MONITORS, higher_is_better

Status = Literal["finished", "pruned", "failed", "killed", "running"]
HISTORY = (*MONITORS, "epoch_seconds")  # the metrics of epochs that are compared


@dataclass(frozen=True)
class Point:
    """One run of a multirun, or one that is compared with others.

    Attributes:
        run_id: MLflow's; empty where the run failed before it had one, or where nothing is tracked.
        name: short, made of what differs (`filters=64 seed=2`).
        settings: the flattened configuration as text, such as {"model.filters": "64", "seed": "2"}.
        history: values an epoch, for each of `HISTORY`; as many of each as epochs were run.
        metrics: the final ones, such as best/epoch, best/val_accuracy, parameters, seconds; test/... where it was tested.
        reason: why it failed, or after which epoch it was pruned; else empty.
        overrides: what it was started with.
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
        """What it reached: of a metric of epochs that of its best epoch (the one whose weights are kept), else the final one.

        None where it never came so far.
        """
        if objective in self.history:
            values, best = self.history[objective], self.metrics.get("best/epoch", 0)
            return values[int(best) - 1] if 1 <= best <= len(values) else None  # no number (NaN) is in no range
        return self.metrics.get(objective)

    @property
    def epochs(self) -> int:
        """How many were run."""
        return max(map(len, self.history.values()), default=0)

    @property
    def seconds(self) -> float:
        """What it took in all; of a run that told no such thing, training and validation."""
        return self.metrics.get("seconds", math.fsum(self.history.get("epoch_seconds", ())))


def ranked(points: Iterable[Point], objective: str) -> list[Point]:
    """Finished points by their value, the best first; points of equal value by validation loss, then by name.

    One whose value is no finite number reached nothing: it comes last.
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
    """Lower is better, and what is no finite number is worst."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if higher_is_better(objective) else value


def varying_keys(points: Sequence[Point]) -> list[str]:
    """The settings in which points differ, in the order of the configuration; where things lie does not count."""
    keys = dict.fromkeys(key for point in points for key in point.settings)
    return [key for key in keys if role_of(key).distinguishes and len({p.settings.get(key) for p in points}) > 1]


def latest(points: Sequence[Point]) -> list[Point]:
    """Of points with the same settings (run again after a change to the code) the last; names are made to tell them apart."""
    found = list({tuple(point.settings.get(key) for key in varying_keys(points)): point for point in points}.values())
    if len({point.name for point in found}) == len(found):
        return found
    words = key_labels(swept_keys(found))
    return [
        replace(point, name=" ".join(f"{word}={point.settings.get(key)}" for key, word in words.items()))
        for point in found
    ]


def swept_keys(points: Sequence[Point]) -> list[str]:
    """The varied settings without those that another choice brings along.

    `optimizer=adam,sgd` varies optimizer.name, and with it lr, momentum and more: where each name has but one lr, the
    name says it. One that is swept beside the choice stays. The name of a source stands for its `_target_`, too.
    """
    keys = varying_keys(points)
    return [key for key in keys if not any(_implied_by(points, choice, key) for choice in keys)]


def _implied_by(points: Sequence[Point], choice: str, key: str) -> bool:
    group, _, last = choice.rpartition(".")
    if last not in CHOICES or key in (choice, f"{group}.name") or not key.startswith(f"{group}."):
        return False
    pairs = {(point.settings.get(choice), point.settings.get(key)) for point in points}
    return len(pairs) == len({first for first, _ in pairs})
