"""Runs in MLflow -> points, and multiruns -> comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.comparison.comparison import Comparison
from experiments.comparison.points import HISTORY, Point, Status, latest
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.defaults import default
from experiments.runs import store

STATUS: dict[str, Status] = {store.FINISHED: "finished", store.FAILED: "failed", store.KILLED: "killed"}


def to_point(client: MlflowClient, run: Run) -> Point:
    """A training run as a point. Makes one query per metric of `HISTORY`."""
    tags = run.data.tags
    status = "pruned" if store.TAG_PRUNED in tags else STATUS.get(run.info.status, "running")
    epochs = store.metric_history(client, run.info.run_id, HISTORY)
    history = {name: [epoch[name] for epoch in epochs if name in epoch] for name in HISTORY}
    metrics = dict(run.data.metrics)
    if epochs and "best/epoch" not in metrics:  # the run has not ended
        metrics["seconds"] = sum(history["epoch_seconds"])
    reason = tags.get(store.TAG_PRUNED) or tags.get(store.TAG_FAILURE) or ""
    overrides = store.read_overrides(tags)
    return Point(run.info.run_id, run.info.run_name, status, run.data.params, history, metrics, reason, overrides)


def find_comparison(which: Sequence[str], uri: str, objectives: Sequence[str]) -> Comparison:
    """A multirun, or single runs, by name, by id, or by the start of an id; by default, the latest multirun.

    Args:
        objectives: metrics to rank by; by default, those of the multirun.

    Raises:
        UserError: there is no multirun or run of that name or id.
    """
    advice = "start one: python train.py -m data=digits model.filters=16,32"
    client = store.connect_existing(uri, advice)
    places = list(store.experiment_ids(client).values())
    parents = store.search_runs(client, places, f"tags.{store.TAG_MULTIRUN} != ''")
    if not which:
        if not parents:
            raise UserError(f"there is no multirun yet; {advice}")
        return _of_parent(client, parents[0], objectives)
    if len(which) == 1 and (fitting := [run for run in parents if _called(run, which[0])]):
        return _of_parent(client, fitting[0], objectives)
    trained = store.search_runs(client, places, f"tags.{store.TAG_FINGERPRINT} != ''")
    chosen: list[Point] = []
    for text in which:
        called = [run for run in parents if _called(run, text)]
        fitting = [
            child for run in called for child in store.child_runs(client, run.info.experiment_id, run.info.run_id)
        ]
        fitting = fitting or [run for run in trained if _called(run, text)]
        if not fitting:
            raise UserError(f"{text}: there is no multirun or run with this name, or with an id that starts with it")
        chosen += [to_point(client, run) for run in fitting]
    points = list({point.run_id: point for point in chosen}.values())
    return Comparison(" ".join(which), None, points, objectives or default("sweep.objectives"))


def _called(run: Run, text: str) -> bool:
    starts = text != "" and run.info.run_id.startswith(text)
    return starts or text in (run.info.run_name, run.data.tags.get(store.TAG_MULTIRUN))


def _of_parent(client: MlflowClient, parent: Run, objectives: Sequence[str]) -> Comparison:
    tags = parent.data.tags
    ranked_by = objectives or tags.get(store.TAG_OBJECTIVES, " ".join(default("sweep.objectives"))).split()
    children = store.child_runs(client, parent.info.experiment_id, parent.info.run_id)
    points = latest([to_point(client, run) for run in children])
    command = Command(tuple(store.read_overrides(tags)), multirun=True)
    return Comparison(parent.info.run_name, command, points, ranked_by)
