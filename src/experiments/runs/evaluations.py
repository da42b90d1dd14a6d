"""Evaluations, reproductions and label checks of finished runs: runs of their own in MLflow, continued after a kill.

with evaluations.evaluation(run, name, data, identity, uses_test=True) as logged:
    logged.finish(metrics, folder)
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from experiments.config import Config
from experiments.config.defaults import default
from experiments.config.foreign import mask_passwords
from experiments.runs import store
from experiments.runs.abandoned import holder
from experiments.runs.delivery import log_files
from experiments.runs.evaluation_count import next_test_evaluation
from experiments.runs.finished import FinishedRun
from experiments.runs.journal import milliseconds
from experiments.runs.local_store import local_path
from experiments.runs.lock import locked
from experiments.runs.recorded import Recorded
from experiments.runs.server import Unreachable
from experiments.runs.store import safe_name

TAG_LABEL_CHECK = "label_check"  # of a label check: the ids of the runs of its folds
TAG_TEST_LABELS = "test_labels_checked"  # of the run of a fold: the digest of the test images that were last checked


@dataclass(frozen=True)
class Logged:
    """An evaluation in MLflow: a child run of the evaluated one, which the same command continues.

    Attributes:
        number: of the evaluations on the run's own test set; 0 if it is on other images.
        finished: all of it is logged already.
    """

    client: MlflowClient
    run_id: str
    number: int
    finished: bool

    def values(self, name: str) -> list[float]:
        """The values of a metric, in the order of its steps."""
        history = self.client.get_metric_history(self.run_id, safe_name(name))
        return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]

    def log(self, name: str, values: Sequence[float]) -> None:
        """Log the values of a metric, all of them or none, as the steps 1, 2, ..."""
        rows = [(name, value, step) for step, value in enumerate(values, start=1)]
        self.client.log_batch(self.run_id, _metrics(rows))

    def finish(self, results: Mapping[str, float], artifacts: Path) -> None:
        """Log the files in a folder and the other metrics, and close the run."""
        _finish(self.client, self.run_id, results, artifacts)


@contextlib.contextmanager
def evaluation(
    run: FinishedRun,
    name: str,
    data: Mapping[str, Any],
    identity: str,
    uses_test: bool,
    again: bool = False,
) -> Iterator[Logged]:
    """The evaluation with this identity, for one process at a time: a new child run, or the one that was begun before.

    It counts once as an evaluation on the run's own test set, also if it is interrupted and continued.

    Args:
        data: settings of the data, logged as parameters data.*
        again: if it is finished, evaluate another time, in another child run.

    Raises:
        UserError: another process is working on it.
    """
    folder = Path(default("outputs")) / "evaluations" / identity[:16]
    with locked(folder, shlex.join(["python", *sys.argv]), "evaluation", "wait for it"):
        tags = {store.TAG_EVALUATION: identity, store.TAG_HELD_BY: holder(folder)}
        logged = _begin(run, name, data, tags, uses_test, again)
        try:
            yield logged
        except BaseException as error:
            if not logged.finished:
                status = store.KILLED if isinstance(error, KeyboardInterrupt) else store.FAILED
                with contextlib.suppress(Unreachable):  # this error is shown, not that one
                    logged.client.set_terminated(logged.run_id, status)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _begin(
    run: FinishedRun, name: str, data: Mapping[str, Any], tags: Mapping[str, str], uses_test: bool, again: bool
) -> Logged:
    client = store.connect(run.uri)
    same = f"tags.{store.TAG_EVALUATION} = '{tags[store.TAG_EVALUATION]}'"
    if again:
        same += f" and attributes.status != '{store.FINISHED}'"
    if before := client.search_runs([run.experiment_id], same, max_results=1):
        child = before[0]
    else:
        count = next_test_evaluation(client.get_run(run.run_id)) if uses_test else "0"
        above = {store.TAG_PARENT: run.run_id, store.TAG_EVALUATED_RUN: run.run_id}
        tags = {**above, **tags, store.TAG_TEST_SET_EVALUATIONS: count}
        child = client.create_run(run.experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
    number = int(child.data.tags[store.TAG_TEST_SET_EVALUATIONS])
    if int(next_test_evaluation(client.get_run(run.run_id))) <= number:  # the process may be killed before this
        client.set_tag(run.run_id, store.TAG_TEST_SET_EVALUATIONS, str(number))
    finished = child.info.status == store.FINISHED
    if not finished:
        client.update_run(child.info.run_id, store.RUNNING)
        new = [param for param in _params(data, "data.") if param.key not in child.data.params]  # another path, perhaps
        client.log_batch(child.info.run_id, params=new)
    return Logged(client, child.info.run_id, number, finished)


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
    child: str = client.create_run(info.experiment_id, run_name=name, tags=tags).info.run_id
    rows = [(key, value, step) for step, values in enumerate(history, start=1) for key, value in values.items()]
    client.log_batch(child, _metrics(rows), _params(params))
    _finish(client, child, results, artifacts)
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
    run_id: str = found[0].info.run_id
    _finish(client, run_id, results, artifacts)
    return run_id


def how_to_open(uri: str, child: str) -> str:
    """The report of a child run, if its files are on this machine, and how to open MLflow."""
    info = store.connect(uri).get_run(child).info
    folder, in_mlflow = local_path(info.artifact_uri), store.how_to_open(uri, info.experiment_id)
    return f"{os.path.relpath(folder / 'report.html')}, or {in_mlflow}" if folder else in_mlflow


def count_label_check(run: FinishedRun, digest: str) -> None:
    """Count a check of the labels of the run's test images, which have this digest; once, however often it is repeated."""
    client = store.connect(run.uri)
    stored = client.get_run(run.run_id)
    if stored.data.tags.get(TAG_TEST_LABELS) != digest:
        tags = {TAG_TEST_LABELS: digest, store.TAG_TEST_SET_EVALUATIONS: next_test_evaluation(stored)}
        client.log_batch(run.run_id, tags=[RunTag(*tag) for tag in tags.items()])


def _finish(client: MlflowClient, run_id: str, results: Mapping[str, float], artifacts: Path) -> None:
    """Log the files of a folder, and the metrics that are new or have changed; close the run. It may be called again."""
    log_files(client, run_id, artifacts)
    known = client.get_run(run_id).data.metrics
    rows = [(key, value, 0) for key, value in results.items() if known.get(safe_name(key)) != value]
    client.log_batch(run_id, _metrics(rows))
    client.set_terminated(run_id, store.FINISHED)


def _metrics(rows: Sequence[tuple[str, float, int]]) -> list[Metric]:
    """(name, value, step) for MLflow."""
    now = milliseconds()
    return [Metric(safe_name(name), value, now, step) for name, value, step in rows]


def _params(values: Mapping[str, Any], prefix: str = "") -> list[Param]:
    return [Param(f"{prefix}{key}", str(mask_passwords(value))[: store.MAX_PARAM]) for key, value in values.items()]
