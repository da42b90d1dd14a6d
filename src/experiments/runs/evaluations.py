"""Evaluations of a finished run, kept as its children and counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from experiments.runs.finished import FinishedRun
from experiments.runs.store import PARENT, safe_name


def log_evaluation(
    trained: FinishedRun, name: str, data: Mapping[str, Any], results: Mapping[str, float], artifacts: Path
) -> str:
    """Keep an evaluation of a finished run as its child; gives the child's id."""
    client = MlflowClient(trained.uri)
    tags = {PARENT: trained.run_id, "evaluated_run": trained.run_id}
    child = client.create_run(trained.experiment_id, run_name=name, tags=tags).info.run_id
    now = int(time.time() * 1000)
    params = [Param(f"data.{key}", str(value)[:6000]) for key, value in data.items()]
    client.log_batch(child, [Metric(safe_name(key), value, now, 0) for key, value in results.items()], params)
    client.log_artifacts(child, str(artifacts))
    client.set_terminated(child, "FINISHED")
    return child


def count_test_evaluation(trained: FinishedRun) -> int:
    """Note that a run's own test set is looked at once more; gives how often it was, this time included."""
    client = MlflowClient(trained.uri)
    tag = next_test_evaluation(client.get_run(trained.run_id))
    client.set_tag(trained.run_id, tag.key, tag.value)
    return int(tag.value)


def next_test_evaluation(run: Run) -> RunTag:
    return RunTag("test_set_evaluations", str(int(run.data.tags.get("test_set_evaluations", "0")) + 1))
