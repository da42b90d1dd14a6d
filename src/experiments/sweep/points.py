"""What a comparison is made of: runs as points, each with its settings and what it reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["finished", "pruned", "failed", "killed", "running"]
EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "epoch_seconds")


@dataclass(frozen=True)
class Point:
    """One run of a multirun, or one that is compared with others.

    Attributes:
        run_id: MLflow's; empty where the run failed before it had one, or where nothing is tracked.
        name: short, made of what differs (`filters=64 seed=2`).
        settings: the flattened configuration as text, such as {"model.filters": "64", "seed": "2"}.
        history: values an epoch, for each of `EPOCH_METRICS`; as many of each as epochs were run.
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
            values, best = self.history[objective], int(self.metrics.get("best/epoch", 0))
            return values[best - 1] if 0 < best <= len(values) else None
        return self.metrics.get(objective)


def higher_is_better(objective: str) -> bool:
    """Accuracy and F1 are; losses, parameters and seconds are better low."""
    return objective.rpartition("/")[2].removeprefix("val_") in ("accuracy", "macro_f1")


def ranked(points: Iterable[Point], objective: str) -> list[Point]:
    """Finished points by their value, the best first; points of equal value by validation loss, then by name."""
    finished = [(point, point.value(objective)) for point in points if point.status == "finished"]
    sign = -1 if higher_is_better(objective) else 1
    valued = [
        (sign * value, point.value("val/loss") or 0.0, point.name, point)
        for point, value in finished
        if value is not None
    ]
    return [point for *_, point in sorted(valued, key=lambda row: row[:3])]


def varied(points: Sequence[Point]) -> list[str]:
    """The settings in which points differ, in the order of the configuration; where things lie does not count."""
    ignored = ("tracking.", "sweep.", "outputs", "resume", "device", "evaluate_test", "data.cache")
    keys = dict.fromkeys(key for point in points for key in point.settings)
    return [
        key for key in keys if not key.startswith(ignored) and len({point.settings.get(key) for point in points}) > 1
    ]
