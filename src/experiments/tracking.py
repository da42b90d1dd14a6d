"""The only module that writes to MLflow. `Tracker` finds or starts the run that stands for a fingerprint; `NoTracker`
has the same methods and keeps the results in the run's folder."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)

from experiments import exporting, store
from experiments.config import Config, UserError
from experiments.data import Splits
from experiments.models import Classifier
from experiments.runs import Trained


class Tracker:
    """One run in MLflow. Every method may be called again after a crash: nothing is written twice.

    Attributes:
        run_id: MLflow's.
        name: the run's, for people.
        finished: the run was finished before; there is nothing left to do.
    """

    usable = True  # by the scripts, which bring runs back from MLflow

    def __init__(self, config: Config, fingerprint: str, overrides: Sequence[str], splits: Splits) -> None:
        assert config.tracking.uri is not None
        self.uri = config.tracking.uri.rstrip("/")
        self.client = store.connect(self.uri)
        experiment_id = self._experiment(config)
        run = self._newest(experiment_id, fingerprint) if config.resume else None
        if run is None:
            name = config.tracking.run_name or _name(config, overrides, fingerprint)
            tags = {"fingerprint": fingerprint, "test_set_evaluations": "0", **_origin(overrides)}
            run = self.client.create_run(experiment_id, run_name=name, tags=tags)
        self.run_id: str = run.info.run_id
        self.name: str = run.info.run_name
        self.experiment_id = experiment_id
        self.finished = run.info.status == "FINISHED"
        self._logged = self._logged_epochs(run)
        self._precision = config.precision
        if not self.finished:
            self._describe(run, config, splits)

    def _experiment(self, config: Config) -> str:
        name = config.tracking.experiment
        place = Path(config.tracking.artifacts).resolve() / quote(name, safe="")
        artifacts = place.as_uri() if self.uri.startswith("sqlite") else None
        with filelock.FileLock(Path(config.outputs) / ".mlflow.lock"):  # runs that start together make it once
            known = self.client.get_experiment_by_name(name)
            if known is None:
                return self.client.create_experiment(
                    name, artifacts, {"mlflow.experimentKind": "custom_model_development"}
                )
        if known.lifecycle_stage != LifecycleStage.ACTIVE:
            raise UserError(
                f"tracking.experiment={name}: was deleted in MLflow; restore it there, or take another name"
            )
        return known.experiment_id

    def _newest(self, experiment_id: str, fingerprint: str) -> Run | None:
        found = self.client.search_runs(
            [experiment_id],
            f"tags.fingerprint = '{fingerprint}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return found[0] if found else None

    def _logged_epochs(self, run: Run) -> set[int]:
        if "val/loss" not in run.data.metrics:
            return set()
        return {metric.step for metric in self.client.get_metric_history(self.run_id, "val/loss")}

    def _describe(self, run: Run, config: Config, splits: Splits) -> None:
        """Parameters and data set, where they are not there yet (the process may have died before)."""
        if run.info.status != "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
        params = [
            Param(key, str(value)[:6000]) for key, value in _flatten(config.to_dict()) if key not in run.data.params
        ]
        for start in range(0, len(params), 100):  # MLflow's limit a call
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        if not run.inputs or not run.inputs.dataset_inputs:
            self.client.log_inputs(self.run_id, datasets=list(_datasets(config, splits)))

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """The metrics of an epoch, in one transaction."""
        if epoch not in self._logged:
            self._log_metrics(metrics, epoch)
            self._logged.add(epoch)

    def _log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, [Metric(_safe(key), value, now, step) for key, value in metrics.items()])

    def results(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return dict(self.client.get_run(self.run_id).data.metrics)

    def finish(
        self,
        results: Mapping[str, float],
        artifacts: Path,
        model: Classifier,
        example: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        """Keep everything that a finished run leaves, and close it.

        Args:
            results: final metrics.
            artifacts: a folder; all that it holds.
            model: in evaluation mode.
            example: raw pictures, uint8 (at least 2, 3, H, W).
        """
        self.client.log_artifacts(self.run_id, str(artifacts))
        self._log_model(model, example, classes)
        run = self.client.get_run(self.run_id)
        if not set(map(_safe, results)) <= run.data.metrics.keys():
            self._log_metrics(results, int(results["best/epoch"]))
        self.client.log_batch(self.run_id, tags=[RunTag("test_set_evaluations", "1")])
        self.close("FINISHED")
        self.finished = True

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    def _log_model(self, model: Classifier, example: np.ndarray, classes: Sequence[str]) -> None:
        """The model as `model`, exported without pickle; a half-written one of an earlier attempt is removed."""
        found = self.client.search_logged_models([self.experiment_id], filter_string=f"source_run_id = '{self.run_id}'")
        for logged in found:
            if str(logged.status) == "READY":
                self._link(logged.model_id)
                return
            self.client.delete_logged_model(logged.model_id)
        logged = self.client.create_logged_model(self.experiment_id, name="model", source_run_id=self.run_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            exporting.save_model(model, path, example, classes, logged, self._precision)
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, "READY")
        self._link(logged.model_id)

    def _link(self, model_id: str) -> None:
        """Show the model as an output of the run; MLflow refuses to be told twice."""
        outputs = self.client.get_run(self.run_id).outputs
        if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step=0)])

    def hint(self) -> str:
        return how_to_look(self.uri, self.experiment_id, self.run_id)


def how_to_look(uri: str, experiment_id: str, run_id: str) -> str:
    """What to type, or where to go, to see a run in MLflow."""
    if uri.startswith("http"):
        return f"{uri}/#/experiments/{experiment_id}/runs/{run_id}"
    return (
        "mlflow ui"
        if store.resolve(uri) == store.resolve("sqlite:///mlflow.db")
        else f"mlflow ui --backend-store-uri {uri}"
    )


def log_evaluation(
    trained: Trained, name: str, data: Mapping[str, Any], results: Mapping[str, float], artifacts: Path
) -> str:
    """Keep an evaluation of a finished run as its child; gives the child's id."""
    client = MlflowClient(trained.uri)
    tags = {"mlflow.parentRunId": trained.run_id, "evaluated_run": trained.run_id}
    child = client.create_run(trained.experiment_id, run_name=name, tags=tags).info.run_id
    now = int(time.time() * 1000)
    params = [Param(f"data.{key}", str(value)[:6000]) for key, value in data.items()]
    client.log_batch(child, [Metric(_safe(key), value, now, 0) for key, value in results.items()], params)
    client.log_artifacts(child, str(artifacts))
    client.set_terminated(child, "FINISHED")
    return child


def count_test_evaluation(trained: Trained) -> int:
    """Note that a run's own test set is looked at once more; gives how often it was, this time included."""
    client = MlflowClient(trained.uri)
    count = int(client.get_run(trained.run_id).data.tags.get("test_set_evaluations", "0")) + 1
    client.set_tag(trained.run_id, "test_set_evaluations", str(count))
    return count


class NoTracker:
    """Keeps no run anywhere but in `folder`; for `tracking=none`."""

    run_id = "none"
    usable = False

    def __init__(self, folder: Path, config: Config, fingerprint: str) -> None:
        self._results = folder / "results.json"
        self.name = config.tracking.run_name or fingerprint[:8]
        self.finished = config.resume and self._results.exists()
        if not self.finished:
            self._results.unlink(missing_ok=True)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        pass

    def results(self) -> dict[str, float]:
        return json.loads(self._results.read_text())

    def finish(
        self,
        results: Mapping[str, float],
        artifacts: Path,
        model: Classifier,
        example: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        partial = self._results.with_suffix(".part")
        partial.write_text(json.dumps(dict(results)))
        partial.replace(self._results)
        self.finished = True

    def close(self, status: str) -> None:
        pass

    def hint(self) -> str:
        return f"ls {self._results.parent}"


def _name(config: Config, overrides: Sequence[str], fingerprint: str) -> str:
    """What differs from the defaults, without the groups' names, and the start of the fingerprint."""
    ignored = ("tracking", "data.root", "outputs", "resume", "device", "hydra")
    different = [
        text.split(".", 1)[-1] if "." in text.split("=")[0] else text
        for text in overrides
        if not text.startswith(ignored)
    ]
    return " ".join([*different, fingerprint[:6]])[:250]


def _origin(overrides: Sequence[str]) -> dict[str, str]:
    """Where a run comes from: command, user, and the commit of the working directory."""
    tags = {
        "overrides": " ".join(overrides)[:5000],  # MLflow's limit a tag
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
    }
    with contextlib.suppress(KeyError, OSError):  # a container's user may have a number but no name
        tags["mlflow.user"] = getpass.getuser()
    git = ("git", "--no-optional-locks")
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return tags
    return {**tags, "mlflow.source.git.commit": commit.stdout.strip(), "git_dirty": str(bool(status.stdout)).lower()}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _datasets(config: Config, splits: Splits) -> Iterator[DatasetInput]:
    """The three splits, each with the SHA-256 of its own images and labels (MLflow's digest holds the first 32 digits)."""
    for context, images in (("training", splits.train), ("validation", splits.validation), ("testing", splits.test)):
        dataset = Dataset(
            name=config.data.name,
            digest=images.digest[:32],
            source_type="local",
            source=json.dumps({"name": config.data.name, "root": getattr(config.data, "root", "scikit-learn")}),
            profile=json.dumps({"images": len(images), "sha256": images.digest, "classes": len(images.classes)}),
        )
        yield DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _safe(name: str) -> str:
    """A metric's name without what MLflow refuses, which becomes its number: a class may be called anything."""
    fitting = (letter if letter.isalnum() or letter in "_-./ :" else f"_{ord(letter):x}_" for letter in name)
    return "".join(fitting)[:250]
