"""Whether the files of a run are where MLflow says they are; a folder or a disk may disappear while a run is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.config.errors import RunFailed
from experiments.runs.local_store import local_path

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

PARTIAL = ".artifact.uploading.*"  # MLflow's names of files that are being written


def logged_models(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """The models of a run, also incomplete ones."""
    return list(client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"))


def is_written(client: MlflowClient, logged: LoggedModel) -> bool:
    """Whether the model is complete, and its files are there."""
    files = [file.path for file in client.list_logged_model_artifacts(logged.model_id, "data")]
    return str(logged.status) == "READY" and "data/model.pt2" in files


def are_gone(client: MlflowClient, run: Run) -> bool:
    """Whether the files of a finished run were deleted since; files on other machines are not looked for."""
    place = local_path(run.info.artifact_uri)
    if place is None:
        return False
    models = logged_models(client, run.info.experiment_id, run.info.run_id)
    return not (place / "config.yaml").exists() or not any(is_written(client, logged) for logged in models)


def check_written(client: MlflowClient, experiment_id: str, run_id: str, artifacts: Path) -> None:
    """Check that MLflow has the files of `artifacts`, and the model of the run; delete what a killed process wrote in part.

    Raises:
        RunFailed: they are not there.
    """
    place, models = client.get_run(run_id).info.artifact_uri, logged_models(client, experiment_id, run_id)
    for location in (place, *(logged.artifact_location for logged in models)):
        delete_partial(location)
    there = {Path(file.path).name for file in client.list_artifacts(run_id)}
    missing = sorted({path.name for path in artifacts.iterdir()} - there)
    if not any(is_written(client, logged) for logged in models):
        missing.append("model")
    if missing:
        raise RunFailed(
            f"the files of this run were logged to {place}, but these are not there: {', '.join(missing)}; "
            "the same command writes them again"
        )


def delete_partial(location: str) -> None:
    """Delete what a killed process was writing in a folder of MLflow: files that are renamed when they are complete."""
    place = local_path(location)
    for path in place.rglob(PARTIAL) if place else ():
        path.unlink(missing_ok=True)
