"""Runs in MLflow -> points, and multiruns -> comparisons."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.comparison.comparison import Comparison
from experiments.comparison.points import HISTORY, Point, Status, latest
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.defaults import default
from experiments.runs import store
from experiments.runs.store import PARENT

STATUS: dict[str, Status] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}


def to_point(client: MlflowClient, run: Run) -> Point:
    """A training run as a point; a query an epoch's metric."""
    tags = run.data.tags
    status = "pruned" if "pruned" in tags else STATUS.get(run.info.status, "running")
    epochs = store.metric_history(client, run.info.run_id, HISTORY)
    history = {name: [epoch[name] for epoch in epochs if name in epoch] for name in HISTORY}
    metrics = dict(run.data.metrics)
    if epochs and "best/epoch" not in metrics:  # cut short: what can be said so far
        metrics["seconds"] = sum(history["epoch_seconds"])
    reason = tags.get("pruned") or tags.get("failure") or ""
    overrides = shlex.split(tags.get("overrides", ""))
    return Point(run.info.run_id, run.info.run_name, status, run.data.params, history, metrics, reason, overrides)


def find_comparison(which: Sequence[str], uri: str, objectives: Sequence[str]) -> Comparison:
    """A multirun, or single runs, by name, by id, or by the start of an id; without any, the latest multirun.

    Args:
        objectives: what to rank by; without any, what the multirun did.

    Raises:
        UserError: where nothing is called so.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"{uri.removeprefix('sqlite:///')}: there are no runs here; make some: python train.py -m ...")
    client = store.connect(uri)
    places = [experiment.experiment_id for experiment in client.search_experiments()]
    parents = client.search_runs(places, "tags.sweep != ''", order_by=["start_time DESC"], max_results=1000)
    if not which:
        if not parents:
            raise UserError("there is no multirun yet; make one: python train.py -m data=digits model.filters=16,32")
        return _of_parent(client, parents[0], objectives)
    if len(which) == 1 and (fitting := [run for run in parents if _called(run, which[0])]):
        return _of_parent(client, fitting[0], objectives)
    trained = client.search_runs(places, "tags.fingerprint != ''", order_by=["start_time DESC"], max_results=10_000)
    chosen: list[Point] = []
    for text in which:
        called = [run for run in parents if _called(run, text)]
        fitting = [child for run in called for child in children(client, run.info.experiment_id, run.info.run_id)]
        fitting = fitting or [run for run in trained if _called(run, text)]
        if not fitting:
            raise UserError(f"{text}: no multirun and no run is called so, or has an id that starts so")
        chosen += [to_point(client, run) for run in fitting]
    points = list({point.run_id: point for point in chosen}.values())
    return Comparison(" ".join(which), None, points, objectives or default("sweep.objectives"))


def _called(run: Run, text: str) -> bool:
    starts = text != "" and run.info.run_id.startswith(text)
    return starts or text in (run.info.run_name, run.data.tags.get("sweep"))


def _of_parent(client: MlflowClient, parent: Run, objectives: Sequence[str]) -> Comparison:
    tags = parent.data.tags
    ranked_by = objectives or tags.get("objectives", " ".join(default("sweep.objectives"))).split()
    points = latest([to_point(client, run) for run in children(client, parent.info.experiment_id, parent.info.run_id)])
    return Comparison(
        parent.info.run_name, Command(tuple(shlex.split(tags.get("overrides", ""))), multirun=True), points, ranked_by
    )


def children(client: MlflowClient, experiment_id: str, run_id: str) -> list[Run]:
    found: list[Run] = []
    token = None
    while token != "":
        page = client.search_runs(
            [experiment_id],
            f"tags.`{PARENT}` = '{run_id}'",
            order_by=["start_time ASC"],
            max_results=1000,
            page_token=token,
        )
        found += page
        token = page.token or ""
    return found
