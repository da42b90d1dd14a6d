"""Runs in MLflow -> points, and multiruns -> comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.comparison.comparison import Comparison
from experiments.comparison.points import HISTORY, Point, Status, with_distinct_names
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.defaults import default
from experiments.config.foreign import mask_passwords
from experiments.runs import store
from experiments.runs.local_store import local_path

STATUS: dict[str, Status] = {store.FINISHED: "finished", store.FAILED: "failed", store.KILLED: "killed"}


def status_of(run: Run) -> tuple[Status, str]:
    """The status of a training run, and why it failed or after which epoch it was pruned, else an empty text."""
    tags, status = run.data.tags, STATUS.get(run.info.status, "running")
    if status == "killed" and store.TAG_PRUNED in tags:
        return "pruned", tags[store.TAG_PRUNED]
    return status, tags.get(store.TAG_FAILURE, "") if status == "failed" else ""


def to_point(client: MlflowClient, run: Run, parent_id: str = "") -> Point:
    """A training run as a point, with its name in the multirun `parent_id`; one query per metric of `HISTORY`."""
    epochs = store.metric_history(client, run.info.run_id, HISTORY)
    history = {name: [epoch[name] for epoch in epochs if name in epoch] for name in HISTORY}
    metrics = dict(run.data.metrics)
    if epochs and "best/epoch" not in metrics:  # interrupted: what is known so far
        metrics["seconds"] = sum(history["epoch_seconds"])
    status, reason = status_of(run)
    return Point(
        run.info.run_id,
        run.data.tags.get(f"{store.TAG_MEMBER}{parent_id}", run.info.run_name),
        status,
        run.data.params,
        history,
        metrics,
        reason,
        store.read_overrides(run.data.tags),
        images=" ".join(sorted(each.dataset.digest for each in run.inputs.dataset_inputs)) if run.inputs else "",
        link=_link(client, run),
    )


def _link(client: MlflowClient, run: Run) -> str:
    """The address of a run on an MLflow server, or the file of its report."""
    if place := local_path(run.info.artifact_uri):
        return str(place / "report.html")
    uri = client.tracking_uri
    page = f"{uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"
    return mask_passwords(page) if uri.startswith("http") else ""


def find_comparison(which: Sequence[str], uri: str, objectives: Sequence[str]) -> Comparison:
    """A multirun, or single runs, by name, by id, or by the start of an id; by default the latest multirun.

    Args:
        objectives: metrics to rank by; if empty, those of the multirun.

    Raises:
        UserError: there is no such multirun or run.
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
        points = [point for run in parents if _called(run, text) for point in points_of(client, run)]
        points = points or [to_point(client, run) for run in trained if _called(run, text)]
        if not points:
            raise UserError(f"{text}: no multirun or run has this name, or an id with this start")
        chosen += points
    points = with_distinct_names(list({point.run_id: point for point in chosen}.values()))
    return Comparison(" ".join(which), None, points, objectives or default("sweep.objectives"))


def _called(run: Run, text: str) -> bool:
    """Whether a text names a run: its name, the start of an id, or a path in the folder of a multirun."""
    ids = [run.info.run_id, run.data.tags.get(store.TAG_MULTIRUN, run.info.run_id)]
    starts = text != "" and any(number.startswith(text) for number in ids)
    return starts or text[: store.MAX_NAME] == run.info.run_name or ids[1] in Path(text).parts


def _of_parent(client: MlflowClient, parent: Run, objectives: Sequence[str]) -> Comparison:
    tags = parent.data.tags
    ranked_by = objectives or tags.get(store.TAG_OBJECTIVES, " ".join(default("sweep.objectives"))).split()
    command = Command(tuple(store.read_overrides(tags)), tags.get(store.TAG_CONFIG_DIR), multirun=True)
    return Comparison(parent.info.run_name, command, points_of(client, parent), ranked_by)


def points_of(client: MlflowClient, parent: Run) -> list[Point]:
    """The runs of a multirun as points, in the order in which they were started."""
    run_id = parent.info.run_id
    children = store.child_runs(client, parent.info.experiment_id, run_id)
    return with_distinct_names([to_point(client, run, run_id) for run in children])
