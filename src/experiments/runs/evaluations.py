"""Evaluations and reproductions of a finished run: its child runs in MLflow, and how often its test set was used."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from experiments.config import Config
from experiments.config.foreign import mask_passwords
from experiments.runs import store
from experiments.runs.finished import FinishedRun
from experiments.runs.recorded import Recorded
from experiments.runs.store import safe_name

TAG_LABEL_CHECK = "label_check"  # of a label check: the ids of the runs of its folds


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
    tags = {store.TAG_PARENT: run.run_id, store.TAG_EVALUATED_RUN: run.run_id}
    child = client.create_run(run.experiment_id, run_name=name[: store.MAX_NAME], tags=tags).info.run_id
    now = int(time.time() * 1000)
    params = [Param(f"data.{key}", str(mask_passwords(value))[: store.MAX_PARAM]) for key, value in data.items()]
    client.log_batch(child, [Metric(safe_name(key), value, now, 0) for key, value in results.items()], params)
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
    rows = [Param(key, str(mask_passwords(value))[: store.MAX_PARAM]) for key, value in params.items()]
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
