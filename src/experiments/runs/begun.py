"""The run in MLflow that a process works on: found by its fingerprint, or started; and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from experiments.config import Config, UserError
from experiments.config.foreign import mask_passwords
from experiments.config.keys import flatten
from experiments.config.processes import launched
from experiments.data import Splits
from experiments.runs import provenance, store
from experiments.runs.data_sets import log_data_sets
from experiments.runs.provenance import ParentRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def find_or_start(
    client: MlflowClient,
    experiment_id: str,
    config: Config,
    overrides: Sequence[str],
    fingerprint: str,
    name: str,
    parent: ParentRun | None,
) -> Run:
    """The run to continue, to show, or to evaluate on the test set; or a new one."""
    run = _find(client, experiment_id, fingerprint, config.resume, parent)
    if run is None:
        tags = {store.TAG_FINGERPRINT: fingerprint, store.TAG_TEST_SET_EVALUATIONS: "0"}
        tags |= store.override_tags(overrides) | provenance.provenance_tags() | provenance.machine_tags(config)
        tags |= store.member_tags(parent.run_id, name) if parent and parent.run_id else {}
        tags |= {store.TAG_THREADS: str(torch.get_num_threads()), store.TAG_PROCESSES: str(launched().count)}
        return client.create_run(experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
    if parent and parent.run_id:
        _join(client, run, parent.run_id, name)
    return run


def _find(
    client: MlflowClient, experiment_id: str, fingerprint: str, resume: bool, parent: ParentRun | None
) -> Run | None:
    """The run to continue, or to evaluate on the test set; None to start a new one."""
    if not (parent and parent.tests):
        return _latest(client, experiment_id, fingerprint) if resume else None
    run = client.get_run(parent.tests)
    if run.data.tags.get(store.TAG_FINGERPRINT) != fingerprint:
        raise UserError(provenance.CHANGED)
    return run


def _latest(client: MlflowClient, experiment_id: str, fingerprint: str) -> Run | None:
    found = client.search_runs(
        [experiment_id],
        f"tags.{store.TAG_FINGERPRINT} = '{fingerprint}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return found[0] if found else None


def _join(client: MlflowClient, run: Run, parent_id: str, name: str) -> None:
    """Make the run a point of a multirun; it stays a point of others, but MLflow shows it below one of them only."""
    if moved := run.data.tags.get(store.TAG_PARENT) != parent_id:
        client.update_run(run.info.run_id, name=name[: store.MAX_NAME])
    for tag, value in store.member_tags(parent_id, name).items():
        if moved or run.data.tags.get(tag) != value:
            client.set_tag(run.info.run_id, tag, value)


def logged_epochs(client: MlflowClient, run: Run) -> set[int]:
    """The epochs whose metrics MLflow has."""
    if "val/loss" not in run.data.metrics:
        return set()
    return {metric.step for metric in client.get_metric_history(run.info.run_id, "val/loss")}


def describe(client: MlflowClient, run: Run, config: Config, splits: Splits) -> None:
    """Set the status, and log the data sets unless an earlier process has logged them."""
    if run.info.status != store.RUNNING:
        client.update_run(run.info.run_id, status=store.RUNNING)
    for tag in {store.TAG_PRUNED, store.TAG_FAILURE} & run.data.tags.keys():
        client.delete_tag(run.info.run_id, tag)
    if not run.inputs or not run.inputs.dataset_inputs:
        log_data_sets(client, run.info.run_id, config, splits)


def missing_params(config: Config, known: Mapping[str, str]) -> dict[str, str]:
    """The settings that MLflow does not know."""
    every = flatten(config.to_dict())
    return {key: str(mask_passwords(value))[: store.MAX_PARAM] for key, value in every if key not in known}
