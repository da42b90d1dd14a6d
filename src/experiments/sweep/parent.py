"""The parent run of a multirun in MLflow: found or started, its points read, its results kept."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag

from experiments import provenance, runs, store
from experiments.config import Config, UserError
from experiments.sweep.comparison import Comparison
from experiments.sweep.points import EPOCH_METRICS, Point, Status, newest
from experiments.tracking import PARENT

STATUS: dict[str, Status] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "killed"}


class Parent:
    """One multirun in MLflow; the same name in the same experiment finds it again.

    Attributes:
        run_id: MLflow's.
    """

    def __init__(self, config: Config, name: str, overrides: Sequence[str]) -> None:
        assert config.tracking.uri is not None
        self.uri = config.tracking.uri.rstrip("/")
        self.client = store.connect(self.uri)
        self.experiment_id = store.experiment(self.client, config)
        key = identify(config, name)
        with filelock.FileLock(Path(config.outputs) / ".mlflow.lock"):  # processes that start together make it once
            found = self.client.search_runs([self.experiment_id], f"tags.sweep = '{key}'", max_results=1)
            if config.resume and found:
                self.run_id: str = found[0].info.run_id
                self.client.update_run(self.run_id, status="RUNNING")
            else:
                tags = {"sweep": key, "test_set_evaluations": "0", **provenance.origin(overrides)}
                self.run_id = self.client.create_run(self.experiment_id, run_name=name[:250], tags=tags).info.run_id

    def children(self) -> list[Run]:
        """The points as MLflow's runs, in the order in which they were started."""
        return _children(self.client, self.experiment_id, self.run_id)

    def points(self) -> list[Point]:
        return newest([point(self.client, run) for run in self.children()])

    def conclude(self, comparison: Comparison, folder: Path) -> None:
        """Keep what the multirun came to, and the report in `folder`; FAILED where a point did, else FINISHED."""
        winner, now = comparison.winner, int(time.time() * 1000)
        tags = {"test_set_evaluations": str(len(comparison.tested)), "objectives": " ".join(comparison.objectives)}
        values = []
        if winner:
            tags |= {"winner": winner.run_id, "winner_command": comparison.winner_command[:5000]}
            kept = {name: value for name, value in winner.metrics.items() if name.startswith(("best/", "test/"))}
            values = [Metric(name, value, now, 0) for name, value in kept.items()]
        self.client.log_artifacts(self.run_id, str(folder))
        self.client.log_batch(self.run_id, values, tags=[RunTag(name, text) for name, text in tags.items()])
        self.close("FAILED" if comparison.count("failed") else "FINISHED")

    def close(self, status: str) -> None:
        self.client.set_terminated(self.run_id, status)

    def stop(self, status: str) -> None:
        """Close it before its time; of points that were under way in other processes, none is left as running."""
        for run in self.children():
            if run.info.status not in STATUS:
                self.client.set_terminated(run.info.run_id, "KILLED")
        self.close(status)

    def hint(self) -> str:
        return store.how_to_look(self.uri, self.experiment_id, self.run_id)


def identify(config: Config, name: str) -> str:
    """What stands for a multirun of that name: 12 hexadecimal digits made of experiment and name."""
    return hashlib.sha256(json.dumps([config.tracking.experiment, name]).encode()).hexdigest()[:12]


def point(client: MlflowClient, run: Run) -> Point:
    """A training run as a point; a query an epoch's metric."""
    tags = run.data.tags
    status = "pruned" if "pruned" in tags else STATUS.get(run.info.status, "running")
    epochs = runs.history(client, run.info.run_id, EPOCH_METRICS)
    history = {name: [epoch[name] for epoch in epochs if name in epoch] for name in EPOCH_METRICS}
    metrics = dict(run.data.metrics)
    if epochs and "best/epoch" not in metrics:  # cut short: what can be said so far
        metrics["seconds"] = sum(history["epoch_seconds"])
    reason = tags.get("pruned") or tags.get("failure") or ""
    overrides = shlex.split(tags.get("overrides", ""))
    return Point(run.info.run_id, run.info.run_name, status, run.data.params, history, metrics, reason, overrides)


def find(which: Sequence[str], uri: str, objectives: Sequence[str]) -> Comparison:
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
        fitting = [child for run in called for child in _children(client, run.info.experiment_id, run.info.run_id)]
        fitting = fitting or [run for run in trained if _called(run, text)]
        if not fitting:
            raise UserError(f"{text}: no multirun and no run is called so, or has an id that starts so")
        chosen += [point(client, run) for run in fitting]
    points = list({point.run_id: point for point in chosen}.values())
    return Comparison(" ".join(which), "", points, objectives or ("val/accuracy",))


def _called(run: Run, text: str) -> bool:
    starts = text != "" and run.info.run_id.startswith(text)
    return starts or text in (run.info.run_name, run.data.tags.get("sweep"))


def _of_parent(client: MlflowClient, parent: Run, objectives: Sequence[str]) -> Comparison:
    children = _children(client, parent.info.experiment_id, parent.info.run_id)
    tags = parent.data.tags
    ranked_by = objectives or tags.get("objectives", "val/accuracy").split()
    points = newest([point(client, run) for run in children])
    return Comparison(parent.info.run_name, f"python train.py -m {tags.get('overrides', '')}", points, ranked_by)


def _children(client: MlflowClient, experiment_id: str, run_id: str) -> list[Run]:
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
