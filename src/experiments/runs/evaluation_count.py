"""How often the test set of a run was used: a tag of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.runs import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def next_test_evaluation(run: Run) -> str:
    """The number of evaluations on the run's own test set with one more, as a tag has it."""
    return str(int(run.data.tags.get(store.TAG_TEST_SET_EVALUATIONS, "0")) + 1)


def repair_test_count(client: MlflowClient, run: Run) -> None:
    """Count the evaluation of a run whose process was killed after MLflow stored its metrics, and before it stored the count."""
    if "test/loss" in run.data.metrics and run.data.tags.get(store.TAG_TEST_SET_EVALUATIONS) == "0":
        client.set_tag(run.info.run_id, store.TAG_TEST_SET_EVALUATIONS, next_test_evaluation(run))
