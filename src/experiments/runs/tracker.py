"""One training run in MLflow: found by its fingerprint, or started; logged, and closed."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from experiments.config import Config, UserError, command_line
from experiments.config.foreign import mask_passwords
from experiments.config.keys import flatten
from experiments.config.processes import launched
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs import export, finished, provenance, store
from experiments.runs.abandoned import close_abandoned, holder
from experiments.runs.data_sets import log_data_sets
from experiments.runs.evaluations import next_test_evaluation, repair_test_count
from experiments.runs.provenance import ParentRun
from experiments.runs.store import safe_name
from experiments.runs.written import are_gone, check_written, is_written, logged_models

if TYPE_CHECKING:
    from experiments.runs.checkpoint import State

log = logging.getLogger(__name__)


class Tracker:
    """One run in MLflow. Every method may be called again after a crash: nothing is written twice.

    Attributes:
        run_id: its id in MLflow.
        name: its name, shown to users.
        threads: CPU threads of the process that started it; 0 if that is not known.
        finished: the run was finished before, and its model and artifacts are still there.
        tested: the run was finished before, and evaluated on the test set.
    """

    has_model = True

    def __init__(
        self,
        config: Config,
        client: MlflowClient,
        overrides: Sequence[str],
        fingerprint: str,
        name: str,
        splits: Splits,
        folder: Path,
        parent: ParentRun | None = None,
    ) -> None:
        assert config.tracking.uri is not None
        self.uri, name = config.tracking.uri.rstrip("/"), mask_passwords(name)
        self.client = client
        experiment_id = store.experiment_id(self.client, config)
        close_abandoned(self.client, experiment_id, parent.run_id if parent else None)
        run = self._find(experiment_id, fingerprint, config.resume, parent)
        if run is None:
            tags = {store.TAG_FINGERPRINT: fingerprint, store.TAG_TEST_SET_EVALUATIONS: "0"}
            tags |= store.override_tags(overrides) | provenance.provenance_tags() | provenance.machine_tags(config)
            tags |= store.member_tags(parent.run_id, name) if parent and parent.run_id else {}
            tags |= {store.TAG_THREADS: str(torch.get_num_threads()), store.TAG_PROCESSES: str(launched().count)}
            run = self.client.create_run(experiment_id, run_name=name[: store.MAX_NAME], tags=tags)
        elif parent and parent.run_id:
            self._join(run, parent.run_id, name)
        self.run_id: str = run.info.run_id
        self.name: str = name if parent else run.info.run_name
        self.threads = int(run.data.tags.get(store.TAG_THREADS, 0))
        self.experiment_id = experiment_id
        self.finished = run.info.status == store.FINISHED
        if self.finished and are_gone(self.client, run):
            self.finished = False
            log.warning("run %s was finished, but its files are gone; they are made again", self.name)
        self.tested = self.finished and "test/loss" in run.data.metrics
        repair_test_count(client, run)
        self._logged = self._logged_epochs(run)
        self._config = config
        if not self.finished:
            self.client.set_tag(self.run_id, store.TAG_HELD_BY, holder(folder))
            self._describe(run, config, splits)
        self._folder = folder

    def _find(self, experiment_id: str, fingerprint: str, resume: bool, parent: ParentRun | None) -> Run | None:
        """The run to continue, or to evaluate on the test set; None to start a new one."""
        if not (parent and parent.tests):
            return self._latest(experiment_id, fingerprint) if resume else None
        run = self.client.get_run(parent.tests)
        if run.data.tags.get(store.TAG_FINGERPRINT) != fingerprint:
            raise UserError(provenance.CHANGED)
        return run

    def _join(self, run: Run, parent_id: str, name: str) -> None:
        """Make the run a point of a multirun; it stays a point of others, but MLflow shows it below one of them only."""
        if moved := run.data.tags.get(store.TAG_PARENT) != parent_id:
            self.client.update_run(run.info.run_id, name=name[: store.MAX_NAME])
        for tag, value in store.member_tags(parent_id, name).items():
            if moved or run.data.tags.get(tag) != value:
                self.client.set_tag(run.info.run_id, tag, value)

    def _latest(self, experiment_id: str, fingerprint: str) -> Run | None:
        found = self.client.search_runs(
            [experiment_id],
            f"tags.{store.TAG_FINGERPRINT} = '{fingerprint}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return found[0] if found else None

    def _logged_epochs(self, run: Run) -> set[int]:
        if "val/loss" not in run.data.metrics:
            return set()
        return {metric.step for metric in self.client.get_metric_history(self.run_id, "val/loss")}

    def _describe(self, run: Run, config: Config, splits: Splits) -> None:
        """Log parameters and data sets, unless an earlier process has logged them."""
        if run.info.status != store.RUNNING:
            self.client.update_run(self.run_id, status=store.RUNNING)
        for tag in {store.TAG_PRUNED, store.TAG_FAILURE} & run.data.tags.keys():
            self.client.delete_tag(self.run_id, tag)
        params = [
            Param(key, str(mask_passwords(value))[: store.MAX_PARAM])
            for key, value in flatten(config.to_dict())
            if key not in run.data.params
        ]
        for start in range(0, len(params), store.MAX_BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + store.MAX_BATCH])
        if not run.inputs or not run.inputs.dataset_inputs:
            log_data_sets(self.client, self.run_id, config, splits)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, in one transaction."""
        if epoch not in self._logged:
            self._log_metrics(metrics, epoch)
            self._logged.add(epoch)

    def _log_metrics(self, metrics: Mapping[str, float], step: int, tags: Sequence[RunTag] = ()) -> None:
        now = int(time.time() * 1000)
        values = [Metric(safe_name(key), value, now, step) for key, value in metrics.items()]
        self.client.log_batch(self.run_id, values, tags=tags)

    def fork(self, origin: str) -> None:
        """Record from which run and epoch this one continues, and with how many threads."""
        tags = {store.TAG_FORKED_FROM: origin, store.TAG_THREADS: str(torch.get_num_threads())}
        self.client.log_batch(self.run_id, tags=[RunTag(name, text) for name, text in tags.items()])
        self.threads = torch.get_num_threads()

    def results(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return dict(self.client.get_run(self.run_id).data.metrics)

    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch of a finished run."""
        return store.metric_history(self.client, self.run_id)

    def restore(self, state: State) -> bool:
        """Set `state` to that of the finished run, from its model and metrics in MLflow; False if it is not finished.

        Used when the checkpoint was deleted, or is on another machine. The run cannot be trained further.
        """
        if not self.finished:
            return False
        run = finished.load_run(self.run_id, uri=self.uri)
        state.learner.eval_model.load_state_dict(run.logged.weights)
        state.best, state.history = None, self.history()
        state.stopping.best_epoch, state.stopping.stopped = int(run.metrics["best/epoch"]), True
        return True

    def finish(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None:
        """Log everything that a finished run has, see `keep`, and close it."""
        self.keep(results, artifacts, model, splits)
        if not self.finished:  # when the winner of a multirun is tested, its duration stays that of its training
            self.client.set_terminated(self.run_id, store.FINISHED)
        self.finished = True

    def keep(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None:
        """Log everything that a finished run has.

        Args:
            results: the final metrics.
            artifacts: a folder whose files are all logged.
            model: in evaluation mode.
        """
        self.client.log_artifacts(self.run_id, str(artifacts))
        self._log_model(model, splits)
        self._log_final(results)
        check_written(self.client, self.experiment_id, self.run_id, artifacts)

    def reopen(self) -> None:
        """Continue a finished run; its model and its test are made again."""
        self.finished = self.tested = False
        self.client.set_tag(self.run_id, store.TAG_HELD_BY, holder(self._folder))
        self.client.update_run(self.run_id, status=store.RUNNING)
        for logged in logged_models(self.client, self.experiment_id, self.run_id):
            self.client.delete_logged_model(logged.model_id)

    def prune(self, why: str, results: Mapping[str, float]) -> None:
        """Close the run as pruned; the same command without a pruner, or with a larger budget, continues it."""
        self._log_final(results)
        store.close(self.client, self.run_id, store.KILLED, {store.TAG_PRUNED: why})

    def fail(self, error: BaseException) -> None:
        """Close the run as KILLED after Ctrl-C, else as FAILED with the reason."""
        reason = mask_passwords(f"{type(error).__name__}: {error}")[: store.MAX_TAG]
        status, tags = store.FAILED, {store.TAG_FAILURE: reason}
        if command_line.was_interrupted(error):
            status, tags = store.KILLED, {}
        try:
            store.close(self.client, self.run_id, status, tags)
        except (MlflowException, UserError, OSError) as problem:  # the error that ended the run is shown, not this one
            log.warning("run %s stays %s in MLflow (%s)", self.run_id, store.RUNNING, str(problem).splitlines()[0])

    def _log_final(self, results: Mapping[str, float]) -> None:
        """Log the final metrics that are new or have changed; count the evaluation on the test set if its loss is one of them."""
        run = self.client.get_run(self.run_id)
        new = {name: value for name, value in results.items() if run.data.metrics.get(safe_name(name)) != value}
        # At step 0, whatever the best epoch: MLflow draws metrics with a single step 0 as bars, others as curves.
        self._log_metrics(new, 0, [next_test_evaluation(run)] if "test/loss" in new else [])

    def _log_model(self, model: Classifier, splits: Splits) -> None:
        """Log the model as `model`, exported without pickle; one of an earlier attempt that is not complete is deleted."""
        for logged in logged_models(self.client, self.experiment_id, self.run_id):
            if is_written(self.client, logged):
                self._link(logged.model_id)
                return
            self.client.delete_logged_model(logged.model_id)
        logged = self.client.create_logged_model(self.experiment_id, name="model", source_run_id=self.run_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            export.save_model(model, path, export.example(splits), splits.classes, logged, self._config)
            self.client.log_model_artifacts(logged.model_id, str(path))
        self.client.finalize_logged_model(logged.model_id, "READY")
        self._link(logged.model_id)

    def _link(self, model_id: str) -> None:
        """Record the model as an output of the run; MLflow raises if that is done twice."""
        outputs = self.client.get_run(self.run_id).outputs
        if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
            self.client.log_outputs(self.run_id, [LoggedModelOutput(model_id, step=0)])

    def url(self) -> str:
        return store.how_to_open(self.uri, self.experiment_id)
