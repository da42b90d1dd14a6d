"""The points of a comparison: runs with their settings and results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from experiments.config.constraints import Role
from experiments.config.data import DATA_SET_KEYS
from experiments.config.keys import CHOICES, key_labels, role_of
from experiments.config.metrics import EPOCH_METRICS, MONITORS, OBJECTIVES, final_value, higher_is_better

Status = Literal["finished", "pruned", "failed", "killed", "running", "not started"]
HISTORY = tuple(
    name for name in EPOCH_METRICS if name in (*MONITORS, *OBJECTIVES, "epoch_seconds")
)  # the metrics of epochs that are compared
IMAGE_ROLES = (Role.CONTENT, Role.REPEATS)  # of the settings that choose the images of a run


@dataclass(frozen=True)
class Point:
    """One run as compared with others: a run of a grid, a trial of a search, or a single run.

    Attributes:
        run_id: in MLflow; empty if the run failed before it had one, or without MLflow.
        name: short, from the settings that differ (`filters=64 seed=2`).
        settings: the flattened configuration as text, such as {"model.filters": "64", "seed": "2"}.
        history: the values per epoch of each metric in `HISTORY`, all for the same number of epochs.
        metrics: the final metrics, such as kept/epoch, kept/val_accuracy, seconds; test/... if the test set was used.
        reason: why it failed, or after which epoch it was pruned; else empty.
        overrides: those that it was started with.
        images: a digest of its images in all splits; empty if it is not known.
        link: the address of the run on an MLflow server, or the file of its report; empty if there is none.
        cut_short: training.budget has stopped it; known in the process that trained it.
    """

    run_id: str
    name: str
    status: Status
    settings: Mapping[str, str]
    history: Mapping[str, Sequence[float]]
    metrics: Mapping[str, float]
    reason: str = ""
    overrides: Sequence[str] = ()
    images: str = ""
    link: str = ""
    cut_short: bool = False

    def value(self, objective: str) -> float | None:
        """The value of a metric: of the weights that are kept if it is logged per epoch, else the final one.

        None if the run ended before there was one.
        """
        if objective in self.history:
            values, kept = self.history[objective], self.kept_epoch or 0
            return values[kept - 1] if 1 <= kept <= len(values) else None
        return self.metrics.get(objective)

    @property
    def kept_epoch(self) -> int | None:
        """The epoch whose weights are kept; None if the run ended before there was one."""
        epoch = final_value(self.metrics, "kept/epoch")
        return int(epoch) if epoch is not None and math.isfinite(epoch) else None

    @property
    def epochs(self) -> int:
        """The number of epochs that were run."""
        return max(map(len, self.history.values()), default=0)

    @property
    def seconds(self) -> float:
        """The duration of the whole run; if it was not recorded, that of training and validation."""
        return self.metrics.get("seconds", math.fsum(self.history.get("epoch_seconds", ())))


def by_value(points: Iterable[Point], objective: str) -> list[Point]:
    """Finished points by their own value, the best first; points of equal value by validation loss, then by name.

    Points whose value is not finite come last.
    """
    finished = ((point, point.value(objective)) for point in points if point.status == "finished")
    valued = [(sort_key(value, objective), point) for point, value in finished if value is not None]
    return [
        point
        for _, point in sorted(
            valued, key=lambda row: (row[0], sort_key(row[1].value("val/loss"), "val/loss"), row[1].name)
        )
    ]


def sort_key(value: float | None, objective: str) -> float:
    """A sort key: lower is better, and a value that is not finite is worst."""
    if not finite(value):
        return math.inf
    return -value if higher_is_better(objective) else value


def finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def varying_keys(points: Sequence[Point]) -> list[str]:
    """The settings in which points differ, in the order of the configuration; places and names are ignored.

    A point that failed before it had a run has no settings, so it differs in nothing.
    """
    known = [point.settings for point in points if point.settings]
    keys = dict.fromkeys(key for settings in known for key in settings)
    return [key for key in keys if role_of(key).distinguishes and len({each.get(key) for each in known}) > 1]


def with_distinct_names(points: Sequence[Point]) -> list[Point]:
    """The points; if two of them have the same name, all get names made from the swept settings."""
    words = key_labels(swept_keys(points))
    if not words or len({point.name for point in points}) == len(points):
        return list(points)
    return [
        replace(point, name=" ".join(f"{word}={point.settings.get(key)}" for key, word in words.items()))
        for point in points
    ]


def on_other_images(points: Sequence[Point]) -> list[Point]:
    """The points whose images are not those of the first point with the same settings of the data: files have changed."""
    first: dict[tuple[tuple[str, str], ...], str] = {}
    found = []
    for point in points:
        if point.images:
            settings = tuple(sorted(item for item in point.settings.items() if role_of(item[0]) in IMAGE_ROLES))
            if first.setdefault(settings, point.images) != point.images:
                found.append(point)
    return found


def data_set_keys(points: Sequence[Point]) -> list[str]:
    """The settings by which points are of several data sets; none if all are of one, or of copies of one."""
    keys = [key for key in varying_keys(points) if key in DATA_SET_KEYS]
    images: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for point in points:
        if point.images:
            others = sorted(item for item in point.settings.items() if role_of(item[0]) in IMAGE_ROLES)
            images.setdefault(tuple(item for item in others if item[0] not in keys), set()).add(point.images)
    return keys if any(len(found) > 1 for found in images.values()) else []


def swept_keys(points: Sequence[Point]) -> list[str]:
    """The varied settings without those that follow from another choice.

    `optimizer=adam,sgd` varies optimizer.name, and with it lr, momentum and more: if each name has only one lr, lr
    follows from the name. A key that is swept as well stays. The `_target_` of a data source follows from its name.
    """
    keys = varying_keys(points)
    return [key for key in keys if not any(_implied_by(points, choice, key) for choice in keys)]


def _implied_by(points: Sequence[Point], choice: str, key: str) -> bool:
    group, _, last = choice.rpartition(".")
    if last not in CHOICES or key in (choice, f"{group}.name") or not key.startswith(f"{group}."):
        return False
    pairs = {(point.settings.get(choice), point.settings.get(key)) for point in points}
    return len(pairs) == len({first for first, _ in pairs})
