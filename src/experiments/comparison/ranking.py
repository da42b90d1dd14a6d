"""Points -> the ranking as a table, and the Pareto-optimal configurations of several objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.comparison.configurations import Configuration, configurations
from experiments.comparison.points import Point, by_value, finite, varying_keys
from experiments.config.metrics import higher_is_better


def table(points: Sequence[Point], objectives: Sequence[str]) -> pd.DataFrame:
    """One row per point, in the order of `_in_order`.

    Columns: place of its configuration (missing for points without a value), name, the varied settings as text, each objective, kept epoch,
    epochs, val/loss, parameters, seconds, status, reason, run_id.
    """
    keys = varying_keys(points)
    ends = ["place", "name", "kept epoch", "epochs", "parameters", "seconds", "status", "reason", "run_id"]
    columns = dict.fromkeys([*ends[:2], *keys, *objectives, *ends[2:4], "val/loss", *ends[4:]])  # each once
    rows: list[dict[str, Any]] = []
    ranked = configurations(points, objectives[0])
    places = {id(point): place for place, group in enumerate(ranked, start=1) for point in group.points}
    for point in _in_order(points, ranked, objectives[0]):
        placed = point.status == "finished" and finite(point.value(objectives[0]))
        rows.append(
            {key: point.settings.get(key) for key in keys}
            | {metric: value_so_far(point, metric) for metric in ("val/loss", "parameters", *objectives)}
            | {"place": places[id(point)] if placed else None, "name": point.name, "seconds": point.seconds}
            | {"kept epoch": point.kept_epoch, "epochs": point.epochs}
            | {"status": point.status, "reason": point.reason, "run_id": point.run_id}
        )
    frame = pd.DataFrame(rows, columns=list(columns))
    whole = ["place", "kept epoch", "epochs", *({"parameters"} - set(objectives))]
    measured = list(dict.fromkeys([*whole, *objectives, "val/loss", "seconds"]))
    frame[measured] = frame[measured].apply(pd.to_numeric)
    frame[whole] = frame[whole].replace([np.inf, -np.inf], np.nan)
    return frame.astype(dict.fromkeys(whole, "Int64"))


def _in_order(points: Sequence[Point], ranked: Sequence[Configuration], objective: str) -> list[Point]:
    """All points: finished by the rank of their configuration, then by value; finished without a value, pruned by their best
    value, killed or running, failed.
    """
    first = [point for group in ranked for point in by_value(group.points, objective)]
    taken = {id(point) for point in first}
    sign = -1 if higher_is_better(objective) else 1

    def key(point: Point) -> tuple[int, float]:
        group = {"finished": 0, "pruned": 1, "failed": 3}.get(point.status, 2)
        value = value_so_far(point, objective) if point.status == "pruned" else None
        return group, sign * value if value is not None and finite(value) else math.inf

    return [*first, *sorted((point for point in points if id(point) not in taken), key=key)]


def value_so_far(point: Point, objective: str) -> float | None:
    """The value of a point; for a pruned point that kept no epoch, the best value of its epochs."""
    value = point.value(objective)
    if value is not None or point.status != "pruned":
        return value
    values = [value for value in point.history.get(objective, ()) if finite(value)]
    return (max if higher_is_better(objective) else min)(values, default=None)


def pareto(points: Sequence[Point], objectives: Sequence[str]) -> list[Configuration]:
    """The Pareto-optimal configurations, by their means, the best in the first objective first.

    A configuration is Pareto-optimal if no other is at least as good in every objective and better in one.
    """
    signs = np.array([-1 if higher_is_better(objective) else 1 for objective in objectives])
    rows = []
    for group in configurations(points, objectives[0]):
        values = [group.value(objective) for objective in objectives]
        if all(map(finite, values)):
            rows.append((group, signs * np.array(values, dtype=float)))
    return [group for group, own in rows if not any((other <= own).all() and (other < own).any() for _, other in rows)]
