"""One training run in MLflow: found by its fingerprint, or started; logged, and closed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.config import Config, command_line
from experiments.config.foreign import mask_passwords
from experiments.data import Splits
from experiments.models.classifier import Classifier
from experiments.runs import export, finished, store
from experiments.runs.abandoned import close_abandoned, holder
from experiments.runs.begun import describe, find_or_start, logged_epochs, missing_params
from experiments.runs.delivery import ARTIFACTS, MODEL, Delivery, files_below, unnamed_model
from experiments.runs.evaluation_count import repair_test_count
from experiments.runs.journal import Journal, milliseconds, run_folder
from experiments.runs.null_tracker import read_history
from experiments.runs.outbox import Direct, Outbox
from experiments.runs.provenance import ParentRun
from experiments.runs.store import safe_name
from experiments.runs.written import are_gone, logged_models

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from experiments.runs.checkpoint import State

log = logging.getLogger(__name__)


class Tracker:
    """One run in MLflow. Every method may be called again after a crash: nothing is written twice.

    Args:
        folder: of the processes that work on a run with this fingerprint.
        journal: of a run that this machine knows and whose server does not answer; the run is continued without it.
        resumed: the command that sends what is not sent.

    Attributes:
        run_id: its id in MLflow.
        name: its name, shown to users.
        folder: of the run.
        threads: CPU threads of the process that started it; 0 if that is not known.
        finished: the run was finished before, and its model and artifacts are still there.
        tested: the run was finished before, and evaluated on the test set.
    """

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
        journal: Journal | None = None,
        resumed: str = "",
    ) -> None:
        assert config.tracking.uri is not None
        self.uri, name = config.tracking.uri.rstrip("/"), mask_passwords(name)
        self.client, self._config, self._lock, self._resumed = client, config, folder, resumed
        if journal:
            self._go_on_without_server(journal)
            return
        self.experiment_id = store.experiment_id(client, config)
        close_abandoned(client, self.experiment_id, parent.run_id if parent else None)
        run = find_or_start(client, self.experiment_id, config, overrides, fingerprint, name, parent)
        self.run_id: str = run.info.run_id
        self.folder = run_folder(folder, self.run_id)
        if (left := Journal.read(self.folder)) and left.pending:
            if not self._sent(left):
                return
            run = client.get_run(self.run_id)
        self.name: str = name if parent else run.info.run_name
        self._look_at(run, splits)

    def _look_at(self, run: Run, splits: Splits) -> None:
        """Learn from MLflow how far the run is, and prepare it to go on."""
        self.threads = int(run.data.tags.get(store.TAG_THREADS, 0))
        self.finished = run.info.status == store.FINISHED
        if self.finished and are_gone(self.client, run):
            self.finished = False
            log.warning("run %s was finished, but its files are gone; they are made again", self.name)
        self.tested = self.finished and "test/loss" in run.data.metrics
        repair_test_count(self.client, run)
        self._logged = logged_epochs(self.client, run)
        if not self.finished:
            self.client.set_tag(self.run_id, store.TAG_HELD_BY, holder(self._lock))
            describe(self.client, run, self._config, splits)
        self._open(run.data.metrics)
        if not self.finished and (params := missing_params(self._config, run.data.params)):
            self._outbox.send("params", params=params)

    def _open(self, results: Mapping[str, float]) -> None:
        """Begin a journal for what is sent to a server from now on; a database gets it at once."""
        if not self.uri.startswith("http"):
            self._outbox: Outbox | Direct = Direct(self._delivery(self.client))
            return
        known: dict[str, Any] = {"uri": mask_passwords(self.uri), "experiment": self._config.experiment}
        known |= {name: getattr(self, name) for name in ("experiment_id", "run_id", "name", "threads", "finished")}
        known |= {"epochs": sorted(self._logged), "results": dict(results) if self.finished else {}}
        journal = Journal(self.folder, known)
        if self.finished:
            journal.delete()  # its process was killed before it did that
        else:
            journal.write()
        self._outbox = Outbox(journal, self._delivery(store.unasked(self.uri)))

    def _delivery(self, client: MlflowClient) -> Delivery:
        return Delivery(client, self.experiment_id, self.run_id, self.folder)

    def _go_on_without_server(self, journal: Journal) -> None:
        """Take from the journal what the server cannot be asked; what is in it is sent when the server answers again."""
        run = journal.run
        self.run_id, self.name, self.threads = run["run_id"], run["name"], run["threads"]
        self.experiment_id, self.folder = run["experiment_id"], journal.path.parent
        self._logged = journal.epochs
        self.finished, self.tested = journal.finished, "test/loss" in journal.results
        self._outbox = Outbox(journal, self._delivery(store.unasked(self.uri)))
        if not self.finished:
            self._outbox.send("running")

    def _sent(self, left: Journal) -> bool:
        """Send what an earlier process could not send; if that fails again, the run goes on without the server."""
        what = left.unsent
        self._go_on_without_server(left)
        if sent := self._outbox.flush():
            self._outbox.stop()
            log.warning("sent to the MLflow server what it lacked: %s", what)
        return sent

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, in one transaction."""
        if epoch not in self._logged:
            now = milliseconds()
            self._outbox.send("metrics", rows=[[safe_name(key), value, now, epoch] for key, value in metrics.items()])
            self._logged.add(epoch)

    def fork(self, origin: str) -> None:
        """Record from which run and epoch this one continues, and with how many threads."""
        self._outbox.send("tags", tags={store.TAG_FORKED_FROM: origin, store.TAG_THREADS: str(torch.get_num_threads())})
        self.threads = torch.get_num_threads()

    @property
    def unsent(self) -> str:
        """What the server does not have, where it is kept, and what sends it; empty if the server has everything."""
        if not (unsent := self._outbox.unsent):
            return ""
        return f"not sent to the MLflow server: {unsent}; {self.folder} keeps it, this sends it:  {self._resumed}"

    @property
    def has_model(self) -> bool:
        return not self.unsent

    def results(self) -> dict[str, float]:
        """The final metrics of a finished run."""
        return self._outbox.results() if self.unsent else dict(self.client.get_run(self.run_id).data.metrics)

    def history(self) -> list[dict[str, float]]:
        """The metrics of each epoch of a finished run."""
        return read_history(self.folder / ARTIFACTS) if self.unsent else store.metric_history(self.client, self.run_id)

    def restore(self, state: State) -> bool:
        """Set `state` to that of the finished run, from MLflow: its checkpoint is gone. False if the run is not finished."""
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
            self._outbox.send("finish", time=milliseconds())
        self.finished = True
        self._close()

    def keep(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None:
        """Log everything that a finished run has: final metrics, artifacts, and the model, which is in evaluation mode."""
        assert artifacts == self.folder / ARTIFACTS
        for path in files_below(artifacts):
            self._outbox.send("file", path=path)
        if not self.finished:
            self._keep_model(model, splits)
        self._outbox.send("final", results=dict(results), time=milliseconds())
        self._outbox.send("check")

    def _keep_model(self, model: Classifier, splits: Splits) -> None:
        """Log the model as `model`, exported without pickle."""
        place = self.folder / MODEL
        shutil.rmtree(place, ignore_errors=True)
        logged = unnamed_model(self.experiment_id, self.run_id)
        export.save_model(model, place, export.example(splits), splits.classes, logged, self._config)
        self._outbox.send("model")
        for path in files_below(place):
            self._outbox.send("model_file", path=path)
        self._outbox.send("model_ready")

    def reopen(self) -> None:
        """Continue a finished run; its model and its test are made again."""
        self.finished = self.tested = False
        self.client.set_tag(self.run_id, store.TAG_HELD_BY, holder(self._lock))
        self.client.update_run(self.run_id, status=store.RUNNING)
        for logged in logged_models(self.client, self.experiment_id, self.run_id):
            self.client.delete_logged_model(logged.model_id)
        self._open({})

    def prune(self, why: str, results: Mapping[str, float]) -> None:
        """Close the run as pruned; the same command without a pruner, or with a larger budget, continues it."""
        self._outbox.send("final", results=dict(results), time=milliseconds())
        self._outbox.send("close", status=store.KILLED, tags={store.TAG_PRUNED: why}, time=milliseconds())
        self._close()

    def fail(self, error: BaseException) -> None:
        """Close the run as KILLED after Ctrl-C, else as FAILED with the reason."""
        reason = mask_passwords(f"{type(error).__name__}: {error}")[: store.MAX_TAG]
        status, tags = store.FAILED, {store.TAG_FAILURE: reason}
        if command_line.was_interrupted(error):
            status, tags = store.KILLED, {}
        try:
            self._outbox.send("close", status=status, tags=tags, time=milliseconds())
            self._close()
        except Exception as problem:  # of MLflow, or its database: the error that ended the run is shown, not this one
            log.warning("run %s stays %s in MLflow (%s)", self.run_id, store.RUNNING, str(problem).splitlines()[0])
        if self.unsent:
            log.warning(self.unsent)

    def _close(self) -> None:
        """Wait for what is still being sent, but not for long if the server does not answer; the journal keeps the rest."""
        self._outbox.flush()
        self._outbox.stop()

    def url(self) -> str:
        page, in_mlflow = self.folder / ARTIFACTS / "report.html", store.how_to_open(self.uri, self.experiment_id)
        return f"{page}, or {in_mlflow}" if page.exists() else in_mlflow
