"""The best of several finished runs in MLflow; a fold that was easier than others is not better."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.config import UserError
from experiments.config.keys import repeats, role_of
from experiments.config.metrics import final_value, higher_is_better
from experiments.config.wording import counted

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)


def best_run(runs: Sequence[Run], metric: str) -> Run:
    """The run with the best value of a metric; of equals, the first one.

    Each fold has its own validation images, so their results are not compared with those of other runs. If all runs are of folds,
    it is the first run of the configuration with the best mean over its folds.

    Raises:
        UserError: no run has the metric.
    """
    values = [(run, final_value(run.data.metrics, metric)) for run in runs]
    valued = [(run, value) for run, value in values if value is not None and math.isfinite(value)]
    if not valued:
        there = ", ".join(sorted({name for run in runs for name in run.data.metrics}))
        raise UserError(f"--metric {metric}: no finished run has it; there are {there}")
    choose = max if higher_is_better(metric) else min
    whole = [(run, value) for run, value in valued if "val" not in metric or not _is_of_fold(run)]
    if left_out := len(valued) - len(whole):
        log.warning("best: %s", _explanation(left_out, bool(whole)))
    if whole:
        return choose(whole, key=lambda row: row[1])[0]
    configurations: dict[frozenset[tuple[str, str]], list[tuple[Run, float]]] = {}
    for run, value in valued:
        settings = ((key, text) for key, text in run.data.params.items() if role_of(key).identifies_multirun)
        same = frozenset((key, text) for key, text in settings if not repeats(key))
        configurations.setdefault(same, []).append((run, value))
    found = choose(configurations.values(), key=lambda rows: statistics.fmean(value for _, value in rows))
    return min((run for run, _ in found), key=lambda run: run.info.start_time)


def _is_of_fold(run: Run) -> bool:
    return run.data.params.get("data.fold", "None") != "None"


def _explanation(left_out: int, others: bool) -> str:
    reason = "each fold has its own validation images"
    if others:
        return (
            f"{counted(left_out, 'run')} of folds {'was' if left_out == 1 else 'were'} not compared, because {reason}"
        )
    return (
        f"all runs are of folds, and {reason}: this is the first run of the configuration with the best mean over folds"
    )
