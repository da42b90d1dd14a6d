"""Evaluations and reproductions of a finished run: its child runs in MLflow, and how often its test set was used."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from experiments.config import Config
from experiments.config.defaults import default
from experiments.config.foreign import mask_passwords
from experiments.runs import store
from experiments.runs.abandoned import holder
from experiments.runs.finished import FinishedRun
from experiments.runs.local_store import local_path
from experiments.runs.lock import locked
from experiments.runs.recorded import Recorded
from experiments.runs.store import safe_name

TAG_LABEL_CHECK = "label_check"  # of a label check: the ids of the runs of its folds


@dataclass(frozen=True)
class Parts:
    """An evaluation in several parts: a child run of the evaluated one, which the same command continues.

    Attributes:
        number: of the evaluations on the run's own test set; 0 if it is on other images.
        finished: all of it is logged already.
    """

    client: MlflowClient
    run_id: str
    number: int
    finished: bool

    def logged(self, name: str) -> list[float]:
        """The values of a metric, in the order of its steps."""
        history = self.client.get_metric_history(self.run_id, safe_name(name))
        return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]

    def log(self, name: str, values: Sequence[float]) -> None:
        """Log the values of a metric, all of them or none, as the steps 1, 2, ..."""
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, [Metric(safe_name(name), value, now, step) for step, value in enumerate(values, start=1)]
        )

    def finish(self, results: Mapping[str, float], artifacts: Path) -> None:
        """Log the files in a folder and the other metrics, which a killed process may have logged already."""
        now, before = int(time.time() * 1000), self.client.get_run(self.run_id).data.metrics
        self.client.log_artifacts(self.run_id, str(artifacts))
        metrics = [Metric(safe_name(key), value, now, 0) for key, value in results.items()]
        self.client.log_batch(self.run_id, [metric for metric in metrics if metric.key not in before])
        self.client.set_terminated(self.run_id, store.FINISHED)


@contextlib.contextmanager
def in_parts(run: FinishedRun, name: str, data: Mapping[str, Any], identity: str, uses_test: bool) -> Iterator[Parts]:
    """The evaluation with this identity, for one process at a time: a new child run, or the one that was begun before.

    It counts once as an evaluation on the run's own test set, also if it is interrupted and continued.

    Raises:
        UserError: another process is working on it.
    """
    folder = Path(default("outputs")) / "evaluations" / identity[:16]
    with locked(folder, shlex.join(["python", *sys.argv]), "evaluation", "wait for it"):
        parts = _begin(run, name, data, {store.TAG_EVALUATION: identity, store.TAG_HELD_BY: holder(folder)}, uses_test)
        try:
            yield parts
        except BaseException as error:
            if not parts.finished:
                status = store.KILLED if isinstance(error, KeyboardInterrupt) else store.FAILED
                parts.client.set_terminated(parts.run_id, status)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _begin(run: FinishedRun, name: str, data: Mapping[str, Any], tags: Mapping[str, str], uses_test: bool) -> Parts:
    client = store.connect(run.uri)
    same = f"tags.{store.TAG_EVALUATION} = '{tags[store.TAG_EVALUATION]}'"
    if before := client.search_runs([run.experiment_id], same, max_results=1):
        child = before[0]
    else:
        count = next_test_evaluation(client.get_run(run.run_id)).value if uses_test else "0"
        tags = {**_child_tags(run), **tags, store.TAG_TEST_SET_EVALUATIONS: count}
        child = client.create_run(run.experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
    number = int(child.data.tags[store.TAG_TEST_SET_EVALUATIONS])
    if int(next_test_evaluation(client.get_run(run.run_id)).value) <= number:  # the process may be killed before this
        client.set_tag(run.run_id, store.TAG_TEST_SET_EVALUATIONS, str(number))
    finished = child.info.status == store.FINISHED
    if not finished:
        client.update_run(child.info.run_id, store.RUNNING)
        client.log_batch(child.info.run_id, params=_params(data, "data."))
    return Parts(client, child.info.run_id, number, finished)


def log_evaluation(
    run: FinishedRun, name: str, data: Mapping[str, Any], results: Mapping[str, float], artifacts: Path
) -> str:
    """Log an evaluation of a finished run as its child run, and return the child's id.

    Args:
        data: settings of the data, logged as parameters data.*
        results: the metrics.
        artifacts: a folder whose files are all logged.
    """
    client = store.connect(run.uri)
    created = client.create_run(run.experiment_id, run_name=name[: store.MAX_NAME], tags=_child_tags(run))
    child, now = created.info.run_id, int(time.time() * 1000)
    client.log_batch(
        child, [Metric(safe_name(key), value, now, 0) for key, value in results.items()], _params(data, "data.")
    )
    client.log_artifacts(child, str(artifacts))
    client.set_terminated(child, store.FINISHED)
    return child


def log_reproduction(
    recorded: Recorded,
    params: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    results: Mapping[str, float],
    tags: Mapping[str, str],
    artifacts: Path,
) -> str:
    """Log a new training of a finished run as its child run, and return the child's id; the run itself is not changed.

    The child has no fingerprint, so it is never continued, ranked, or chosen as the best or the latest run. A child that a
    process has left incomplete is deleted.
    """
    client, info = store.connect(recorded.uri), recorded.run.info
    mine = f"tags.{store.TAG_REPRODUCED_RUN} = '{info.run_id}' and attributes.status = '{store.RUNNING}'"
    for left in store.search_runs(client, [info.experiment_id], mine):
        client.delete_run(left.info.run_id)
    tags = {store.TAG_PARENT: info.run_id, store.TAG_REPRODUCED_RUN: info.run_id, **tags}
    name = f"reproduction of {info.run_name}"[: store.MAX_NAME]
    child = client.create_run(info.experiment_id, run_name=name, tags=tags).info.run_id
    rows = _params(params)
    for start in range(0, len(rows), store.MAX_BATCH):
        client.log_batch(child, params=rows[start : start + store.MAX_BATCH])
    now = int(time.time() * 1000)
    for step, values in [*enumerate(history, start=1), (0, results)]:
        client.log_batch(child, [Metric(safe_name(key), value, now, step) for key, value in values.items()])
    client.log_artifacts(child, str(artifacts))
    client.set_terminated(child, store.FINISHED)
    return child


def log_label_check(
    config: Config, name: str, folds: Sequence[FinishedRun], results: Mapping[str, float], artifacts: Path
) -> str:
    """Log a label check as a run of its own, and return its id; the same folds have one run, whose files are replaced.

    Args:
        results: the metrics.
        artifacts: a folder whose files are all logged.
    """
    assert config.tracking.uri is not None
    client = store.connect(config.tracking.uri, patient=True)
    experiment, ids = store.experiment_id(client, config), ",".join(run.run_id for run in folds)
    with store.creation_lock(config):
        same = f"tags.{TAG_LABEL_CHECK} = '{ids}'"
        found = client.search_runs([experiment], same, max_results=1) or [
            client.create_run(experiment, run_name=name[: store.MAX_NAME], tags={TAG_LABEL_CHECK: ids})
        ]
    run_id, known = found[0].info.run_id, found[0].data.metrics
    now = int(time.time() * 1000)
    new = [
        Metric(safe_name(key), value, now, 0) for key, value in results.items() if known.get(safe_name(key)) != value
    ]
    client.log_batch(run_id, new)
    client.log_artifacts(run_id, str(artifacts))
    client.set_terminated(run_id, store.FINISHED)
    return run_id


def how_to_open(uri: str, child: str) -> str:
    """The report of a child run, if its files are on this machine, and how to open MLflow."""
    info = store.connect(uri).get_run(child).info
    folder, in_mlflow = local_path(info.artifact_uri), store.how_to_open(uri, info.experiment_id)
    return f"{os.path.relpath(folder / 'report.html')}, or {in_mlflow}" if folder else in_mlflow


def _child_tags(run: FinishedRun) -> dict[str, str]:
    return {store.TAG_PARENT: run.run_id, store.TAG_EVALUATED_RUN: run.run_id}


def _params(values: Mapping[str, Any], prefix: str = "") -> list[Param]:
    return [Param(f"{prefix}{key}", str(mask_passwords(value))[: store.MAX_PARAM]) for key, value in values.items()]


def count_test_evaluation(run: FinishedRun) -> int:
    """Record one more evaluation on the run's own test set, and return the new number of them."""
    client = store.connect(run.uri)
    tag = next_test_evaluation(client.get_run(run.run_id))
    client.set_tag(run.run_id, tag.key, tag.value)
    return int(tag.value)


def repair_test_count(client: MlflowClient, run: Run) -> None:
    """Count the evaluation of a run whose process was killed after MLflow stored its metrics, and before it stored the count."""
    if "test/loss" in run.data.metrics and run.data.tags.get(store.TAG_TEST_SET_EVALUATIONS) == "0":
        tag = next_test_evaluation(run)
        client.set_tag(run.info.run_id, tag.key, tag.value)


def next_test_evaluation(run: Run) -> RunTag:
    """The tag that counts the evaluations on the run's own test set, increased by one."""
    count = int(run.data.tags.get(store.TAG_TEST_SET_EVALUATIONS, "0"))
    return RunTag(store.TAG_TEST_SET_EVALUATIONS, str(count + 1))
