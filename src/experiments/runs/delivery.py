"""What a run logs to MLflow after its start. Every method may be called again: nothing is stored twice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunTag

from experiments.runs import store
from experiments.runs.evaluation_count import next_test_evaluation
from experiments.runs.journal import Entry
from experiments.runs.written import check_written, delete_partial, logged_models

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS, MODEL = "artifacts", "model"  # folders in that of a run
MODEL_ID = "m-the-id-of-the-logged-model"  # in the files of a model, until MLflow gives the id


class Delivery:
    """Logs to one run in MLflow.

    Args:
        folder: of the run, with its artifacts and its model.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, run_id: str, folder: Path) -> None:
        self._client, self._experiment_id, self._run_id, self._folder = client, experiment_id, run_id, folder

    def __call__(self, entry: Entry) -> None:
        getattr(self, entry.kind)(**entry.content)

    def metrics(self, rows: Sequence[Sequence[Any]]) -> None:
        """Log (name, value, milliseconds since 1970, step) in one transaction; MLflow stores equal rows once."""
        self._client.log_batch(self._run_id, [Metric(*row) for row in rows])

    def params(self, params: Mapping[str, str]) -> None:
        self._client.log_batch(self._run_id, params=[Param(*row) for row in params.items()])

    def tags(self, tags: Mapping[str, str]) -> None:
        self._client.log_batch(self._run_id, tags=[RunTag(name, text) for name, text in tags.items()])

    def running(self) -> None:
        """Set the status of a run that is continued."""
        self._client.update_run(self._run_id, status=store.RUNNING)

    def file(self, path: str) -> None:
        """Log a file of the folder of artifacts; one that was written again under another name is not there."""
        file = self._folder / ARTIFACTS / path
        if file.exists():
            self._client.log_artifact(self._run_id, str(file), _parent(path))

    def model(self) -> None:
        """Create the model that the files belong to, unless there is one."""
        if not self._models():
            self._client.create_logged_model(self._experiment_id, name=MODEL, source_run_id=self._run_id)

    def _models(self) -> Sequence[LoggedModel]:
        return logged_models(self._client, self._experiment_id, self._run_id)

    def model_file(self, path: str) -> None:
        """Log a file of the model."""
        file, model_id = self._folder / MODEL / path, self._models()[0].model_id
        if path == "MLmodel":
            file.write_text(file.read_text("utf-8").replace(MODEL_ID, model_id), encoding="utf-8")
        self._client.log_model_artifact(model_id, str(file), _parent(path))

    def model_ready(self) -> None:
        """Close the model, and record it as an output of the run; MLflow raises if that is done twice."""
        (model_id, *surplus) = [logged.model_id for logged in self._models()]  # the newest one first
        for other in surplus:  # the reply to a request was lost
            self._client.delete_logged_model(other)
        self._client.finalize_logged_model(model_id, "READY")
        try:
            if not self._has_output(model_id):
                self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, step=0)])
        except Exception:
            if not self._has_output(model_id):  # else the reply to a request was lost
                raise

    def _has_output(self, model_id: str) -> bool:
        outputs = self._client.get_run(self._run_id).outputs
        return model_id in [output.model_id for output in (outputs.model_outputs if outputs else [])]

    def final(self, results: Mapping[str, float], time: int) -> None:
        """Log the final metrics that are new or have changed; count the evaluation on the test set if its loss is one of them."""
        run = self._client.get_run(self._run_id)
        new = {name: value for name, value in results.items() if run.data.metrics.get(store.safe_name(name)) != value}
        tags = [RunTag(store.TAG_TEST_SET_EVALUATIONS, next_test_evaluation(run))] if "test/loss" in new else []
        # At step 0, whatever the best epoch: MLflow draws metrics with a single step 0 as bars, others as curves.
        values = [Metric(store.safe_name(name), value, time, 0) for name, value in new.items()]
        self._client.log_batch(self._run_id, values, tags=tags)

    def check(self) -> None:
        """Check that MLflow has all files, and delete the model: it was only kept to be sent."""
        check_written(self._client, self._experiment_id, self._run_id, self._folder / ARTIFACTS)
        shutil.rmtree(self._folder / MODEL, ignore_errors=True)

    def finish(self, time: int) -> None:
        self._client.set_terminated(self._run_id, store.FINISHED, time)

    def close(self, status: str, tags: Mapping[str, str], time: int) -> None:
        """Set the status of a run that ends unfinished; if another process has finished it, it stays as it is."""
        store.close(self._client, self._run_id, status, tags, time)


def unnamed_model(experiment_id: str, run_id: str) -> LoggedModel:
    """The model of a run before MLflow has given it an id."""
    return LoggedModel(experiment_id, MODEL_ID, MODEL, "", 0, 0, source_run_id=run_id)


def log_files(client: MlflowClient, run_id: str, folder: Path) -> None:
    """Log all files in a folder, each with a request of its own that may be made again; delete what a killed process left."""
    for path in files_below(folder):
        client.log_artifact(run_id, str(folder / path), _parent(path))
    delete_partial(client.get_run(run_id).info.artifact_uri)


def files_below(folder: Path) -> list[str]:
    """The paths of all files in a folder, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _parent(path: str) -> str | None:
    """The folder of a file in MLflow's artifacts; None at their top."""
    parent = Path(path).parent.as_posix()
    return None if parent == "." else parent
