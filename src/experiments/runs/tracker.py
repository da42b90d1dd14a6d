"""The only module that writes to MLflow. `Tracker` finds or starts the run that stands for a fingerprint."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from experiments.config import Config, command_line
from experiments.config.keys import flatten, run_name
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs import export, finished, provenance, store
from experiments.runs.evaluations import next_test_evaluation
from experiments.runs.provenance import ParentRun
from experiments.runs.store import PARENT, safe_name

if TYPE_CHECKING:
    from experiments.runs.checkpoint import State


class Tracker:
    """One run in MLflow. Every method may be called again after a crash: nothing is written twice.

    Attributes:
        run_id: MLflow's.
        name: the run's, for people.
        finished: training was finished before, and all that it leaves is there.
        tested: and so was the evaluation on the test set.
    """

    has_model = True

    def __init__(
        self,
        config: Config,
        overrides: Sequence[str],
        fingerprint: str,
        splits: Splits,
        parent: ParentRun | None = None,
    ) -> None:
        assert config.tracking.uri is not None
        self.uri = config.tracking.uri.rstrip("/")
        self.client = store.connect(self.uri, patient=parent is not None)
        experiment_id = store.experiment_id(self.client, config)
        run = self._newest(experiment_id, fingerprint) if config.resume else None
        if run is None:
            name = config.tracking.run_name or (parent.point_name if parent else run_name(overrides, fingerprint))
            tags = {"fingerprint": fingerprint, "test_set_evaluations": "0", **provenance.provenance_tags(overrides)}
            tags |= {PARENT: parent.run_id} if parent and parent.run_id else {}
            run = self.client.create_run(experiment_id, run_name=name, tags=tags)
        elif parent and parent.run_id and run.data.tags.get(PARENT) != parent.run_id:
            self.client.set_tag(run.info.run_id, PARENT, parent.run_id)
            self.client.update_run(run.info.run_id, name=parent.point_name)
        self.run_id: str = run.info.run_id
        self.name: str = parent.point_name if parent else run.info.run_name
        self.experiment_id = experiment_id
        self.finished = run.info.status == "FINISHED"
        self.tested = self.finished and "test/loss" in run.data.metrics
        self._logged = self._logged_epochs(run)
        self._precision = config.precision
        if not self.finished:
            self._describe(run, config, splits)

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
        for tag in {"pruned", "failure"} & run.data.tags.keys():
            self.client.delete_tag(self.run_id, tag)
        params = [
            Param(key, command_line.mask_passwords(str(value))[:6000])
            for key, value in flatten(config.to_dict())
            if key not in run.data.params
        ]
        for start in range(0, len(params), 100):  # MLflow's limit a call
            self.client.log_batch(self.run_id, params=params[start : start + 100])
        if not run.inputs or not run.inputs.dataset_inputs:
            self._log_datasets(list(_datasets(config, splits)))

    def _log_datasets(self, datasets: list[DatasetInput]) -> None:
        """MLflow looks whether it knows a data set, then adds it; where another run adds it in between, it refuses.

        Each refusal means that one more of them is there now.
        """
        for _ in datasets:
            with contextlib.suppress(MlflowException):
                return self.client.log_inputs(self.run_id, datasets=datasets)
        return self.client.log_inputs(self.run_id, datasets=datasets)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """The metrics of an epoch, in one transaction."""
        if epoch not in self._logged:
            self._log_metrics(metrics, epoch)
            self._logged.add(epoch)

    def _log_metrics(self, metrics: Mapping[str, float], step: int, tags: Sequence[RunTag] = ()) -> None:
        now = int(time.time() * 1000)
        values = [Metric(safe_name(key), value, now, step) for key, value in metrics.items()]
        self.client.log_batch(self.run_id, values, tags=tags)

    def results(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return dict(self.client.get_run(self.run_id).data.metrics)

    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch of a finished run."""
        return store.metric_history(self.client, self.run_id)

    def restore(self, state: State) -> bool:
        """Make `state` that of the finished run, from what MLflow keeps of it; False where it is not finished.

        For a checkpoint that is gone, or lies on another machine; nothing can be trained further with it.
        """
        if not self.finished:
            return False
        trained = finished.load_run(self.run_id, uri=self.uri)
        state.learner.eval_model.load_state_dict(trained.model.state_dict())
        state.best, state.history = None, self.history()
        state.stopping.best_epoch, state.stopping.stopped = int(trained.metrics["best/epoch"]), True
        return True

    def finish(
        self,
        results: Mapping[str, float],
        artifacts: Path,
        model: Classifier,
        splits: Splits,
    ) -> None:
        """Keep everything that a finished run leaves, and close it.

        Args:
            results: final metrics.
            artifacts: a folder; all that it holds.
            model: in evaluation mode.
        """
        self.client.log_artifacts(self.run_id, str(artifacts))
        self._log_model(model, splits)
        self._log_final(results)
        self.client.set_terminated(self.run_id, "FINISHED")
        self.finished = True

    def prune(self, epoch: int, results: Mapping[str, float]) -> None:
        """Close the run as one that was given up after `epoch`; the same command without pruning continues it."""
        self._log_final(results)
        self.client.set_tag(self.run_id, "pruned", f"after epoch {epoch}")
        self.client.set_terminated(self.run_id, "KILLED")

    def fail(self, error: BaseException) -> None:
        """Close the run as KILLED by Ctrl-C, or as FAILED, with the reason."""
        killed = isinstance(error, KeyboardInterrupt)
        if not killed:
            self.client.set_tag(self.run_id, "failure", f"{type(error).__name__}: {error}"[:5000])
        self.client.set_terminated(self.run_id, "KILLED" if killed else "FAILED")

    def _log_final(self, results: Mapping[str, float]) -> None:
        """Those of the final metrics that are not there yet, or not as they are now; a first look at the test set counts."""
        run = self.client.get_run(self.run_id)
        new = {name: value for name, value in results.items() if run.data.metrics.get(safe_name(name)) != value}
        looked = "test/loss" in results and "test/loss" not in run.data.metrics
        self._log_metrics(new, int(results["best/epoch"]), [next_test_evaluation(run)] if looked else [])

    def _log_model(self, model: Classifier, splits: Splits) -> None:
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
            export.save_model(model, path, export.example(splits), splits.classes, logged, self._precision)
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, "READY")
        self._link(logged.model_id)

    def _link(self, model_id: str) -> None:
        """Show the model as an output of the run; MLflow refuses to be told twice."""
        outputs = self.client.get_run(self.run_id).outputs
        if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step=0)])

    def url(self) -> str:
        return store.how_to_open(self.uri, self.experiment_id, self.run_id)


def _datasets(config: Config, splits: Splits) -> Iterator[DatasetInput]:
    """The three splits, each with the SHA-256 of its own images and labels (MLflow's digest holds the first 32 digits)."""
    for context, images in (("training", splits.train), ("validation", splits.validation), ("testing", splits.test)):
        dataset = Dataset(
            name=config.data.name,
            digest=images.digest[:32],
            source_type="local",
            source=json.dumps({"name": config.data.name, "root": config.data.origin}),
            profile=json.dumps({"images": len(images), "sha256": images.digest, "classes": len(images.classes)}),
        )
        yield DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
