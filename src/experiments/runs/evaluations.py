"""Evaluations of a finished run: its child runs in MLflow, and how often its test set was used."""

from __future__ import annotations

import contextlib
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

from experiments.config.defaults import default
from experiments.config.foreign import mask_passwords
from experiments.runs import store
from experiments.runs.abandoned import holder
from experiments.runs.finished import FinishedRun
from experiments.runs.lock import locked
from experiments.runs.store import safe_name


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
        client.log_batch(child.info.run_id, params=_params(data))
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
    client.log_batch(child, [Metric(safe_name(key), value, now, 0) for key, value in results.items()], _params(data))
    client.log_artifacts(child, str(artifacts))
    client.set_terminated(child, store.FINISHED)
    return child


def _child_tags(run: FinishedRun) -> dict[str, str]:
    return {store.TAG_PARENT: run.run_id, store.TAG_EVALUATED_RUN: run.run_id}


def _params(data: Mapping[str, Any]) -> list[Param]:
    return [Param(f"data.{key}", str(mask_passwords(value))[: store.MAX_PARAM]) for key, value in data.items()]


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
