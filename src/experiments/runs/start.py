"""The run that a configuration describes: identified, locked, tracked, and marked if it is interrupted or fails."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.config import MODELS, Config, UserError
from experiments.config.command_line import Command
from experiments.config.keys import run_name
from experiments.config.published import TIMM
from experiments.data import Splits
from experiments.data.batches import Batches
from experiments.data.membership import FILE, Membership
from experiments.models.classifier import Classifier, Layers, list_layers
from experiments.runs.checkpoint import ShouldPrune, State, previous
from experiments.runs.fingerprint import folder_of, identify
from experiments.runs.forks import start_from_another
from experiments.runs.lock import locked
from experiments.runs.null_tracker import NullTracker
from experiments.runs.pool import Pool
from experiments.runs.provenance import CHANGED, ParentRun
from experiments.runs.saving import Saving
from experiments.runs.time_limit import TimeLimit
from experiments.runs.trunks import Trunk
from experiments.training.devices import continue_with
from experiments.training.evaluation import Evaluation, batch_size
from experiments.training.learner import Learner, training_batches
from experiments.training.loop import Progress

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from experiments.runs.tracker import Tracker


@dataclass(frozen=True)
class ActiveRun:
    """A run that only this process works on.

    Attributes:
        inputs: what is trained, validated and tested on: the splits, or frozen features of their images.
        layers: of its network.
        test: whether to evaluate it on the test set.
        folder: has its checkpoint, and its artifacts until they are logged.
        limit: its time.
        trunk: by which other runs with the same first epochs are found.
        pool: of its multirun.
        forks: the points of the multirun may share their first epochs, so its checkpoints are kept there.
    """

    config: Config
    command: Command
    splits: Splits
    inputs: Splits
    layers: Layers
    device: torch.device
    test: bool
    folder: Path
    tracker: Tracker | NullTracker
    limit: TimeLimit
    trunk: Trunk
    pool: Pool | None
    forks: bool

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @functools.cached_property
    def batches(self) -> Batches:
        """The training set."""
        return training_batches(self.config, self.inputs.train, self.device, self.inputs.validation)

    @functools.cached_property
    def validation(self) -> Batches:
        """The validation set."""
        size, threads = batch_size(self.splits.image_shape, self.device.type), self.config.data.workers
        streamed = None if self.device.type == "cpu" else self.batches.streamed  # a GPU has room for both, or for none
        return Batches(self.inputs.validation, size, self.device, streamed=streamed, threads=threads)

    @property
    def is_complete(self) -> bool:
        """It was finished before, and evaluated on the test set if `test`."""
        return self.tracker.finished and (self.tracker.tested or not self.test)

    def restore(self, learner: Learner, should_prune: ShouldPrune) -> State:
        """The state in which the last process left the training; without one, that of another run, or before the first epoch.

        `should_prune` is asked about every epoch in it.
        """
        state, used = State.fresh(learner), None
        if self.config.resume:
            if state.restore(self.checkpoint, self.tracker.run_id) or self.tracker.restore(state):
                continue_with(self.tracker.threads, self.config)
                written = self.trunk.written()
                used = 0 if state.moved else written.threads if written else self.tracker.threads
                self._keep(state)
                state.prune(should_prune, first_epoch=1)
            else:
                self._fork(state, should_prune)
        threads = torch.get_num_threads()
        self.trunk.write(threads if used in (None, threads) else 0)  # 0: some epochs with another number, or elsewhere
        if self.tracker.finished:  # it is only tested
            state.out_of_time = len(state.remaining) > 0
        else:
            self.limit.stops(state)
        return state

    def _fork(self, state: State, should_prune: ShouldPrune) -> None:
        """Continue another run from the last epoch that both share, if it has left a checkpoint of such an epoch."""
        fork = start_from_another(state, self.trunk, self.pool, lambda: self.validation, should_prune)
        if fork is None:
            return
        continue_with(fork.source.record.threads, self.config)
        for epoch, values in enumerate(state.history, 1):
            self.tracker.log(epoch, values)
        self.tracker.fork(f"{fork.source.record.run}:{fork.epoch}")
        state.save(self.checkpoint, self.tracker.run_id, self.config, self.splits)
        self._keep(state)
        if self.pool:
            self.pool.count("shared", self.folder.name, fork.epoch)

    def saving(self, state: State, shown: Progress) -> contextlib.AbstractContextManager[Progress]:
        """The progress `shown`, which also saves the state inside of epochs if training.checkpoint_minutes is set."""
        minutes = self.config.training.checkpoint_minutes
        return contextlib.nullcontext(shown) if minutes is None else Saving(state, self.save, minutes, shown)

    def save(self, state: State) -> None:
        """Write the checkpoint."""
        if self.pool and not state.running:
            self.pool.count("trained", self.folder.name, len(state.history))
        state.save(self.checkpoint, self.tracker.run_id, self.config, self.splits)
        if not state.running:
            self._keep(state)

    def _keep(self, state: State) -> None:
        """Let other points of the multirun continue from this epoch."""
        if self.pool and self.forks and self.checkpoint.exists():
            self.pool.keep(self.folder.name, len(state.history), self.checkpoint)

    def _end(self, state: State) -> None:
        """Record how many epochs the checkpoint has."""
        if written := self.trunk.written():
            self.trunk.write(written.threads, len(state.history))

    def prune(self, state: State) -> dict[str, float]:
        """Close the run as pruned, and return its metrics so far."""
        results = state.results()
        self._end(state)
        self.tracker.prune(state.why_pruned, results)
        return results

    def keep(self, state: State) -> None:
        """Log what a run has whose training failed after the last epoch of `state`, without a test."""
        self.tracker.keep(state.results(), self.artifacts, state.final_model(), self.splits)

    def finish(self, state: State, evaluation: Evaluation) -> dict[str, float]:
        """Close the run as finished, with its artifacts and its model, and return its final metrics."""
        results = state.results() | (evaluation.metrics("test", self.splits.classes) if self.test else {})
        self.limit.note(state)
        Membership.of(self.splits).write(self.artifacts / FILE)
        self._end(state)
        self.tracker.finish(results, self.artifacts, state.final_model(), self.splits)
        previous(self.checkpoint).unlink(missing_ok=True)
        return results


@contextlib.contextmanager
def started(
    config: Config,
    command: Command,
    splits: Splits,
    model: Classifier,
    device: torch.device,
    parent: ParentRun | None,
) -> Iterator[ActiveRun]:
    """The run, for this process alone; if an exception leaves the block, the run is marked as KILLED or FAILED.

    Raises:
        UserError: the network cannot be exported, another process works on the run (a point of a multirun waits for it),
            or MLflow cannot be reached.
    """
    if (config.model.target not in MODELS or config.model.target == TIMM) and config.tracking.uri:
        from experiments.runs.export import check_export  # imports mlflow

        check_export(model, config.model.choice, splits.image_shape)
    client = None
    if config.tracking.uri:
        from experiments.runs import store  # imports mlflow

        client = store.connect(config.tracking.uri, patient=parent is not None)  # before a folder is made
    layers = list_layers(model, splits.image_shape, config.training.unfreeze_epoch)
    test = parent is None if config.evaluate_test is None else config.evaluate_test
    digests = splits.digest, model.weights_digest
    identity = identify(config, device.type, *digests)
    with locked(folder_of(config, identity), command, wait=parent is not None) as lock:
        tracker = _tracker(config, client, command, identity, splits, lock, parent)
        # Runs of other MLflow experiments and stores may have this identity, and unfinished checkpoints of their own.
        folder = lock.with_name(f"{lock.name}-{tracker.run_id[:8]}") if config.tracking.uri else lock
        folder.mkdir(exist_ok=True)
        limit = TimeLimit.of(config, folder, splits, command.started)
        if tracker.finished and limit.goes_on and not (parent and parent.tests):
            tracker.reopen()
        trunk = Trunk.of(config, len(splits.train), *digests, device, folder, tracker.run_id)
        pool = Pool(parent.folder, config.sweep.checkpoints_gb) if parent and parent.folder else None
        forks = parent is not None and parent.forks and config.resume
        waiting = pool.turn(trunk) if pool and forks and not tracker.finished else contextlib.nullcontext()
        try:
            with waiting, limit.running():
                yield ActiveRun(
                    config, command, splits, splits, layers, device, test, folder, tracker, limit, trunk, pool, forks
                )
        except BaseException as error:
            if not tracker.finished:  # a finished run is only shown; an error there does not change its status
                tracker.fail(error)
            raise


def _tracker(
    config: Config,
    client: MlflowClient | None,
    command: Command,
    identity: str,
    splits: Splits,
    folder: Path,
    parent: ParentRun | None,
) -> Tracker | NullTracker:
    name = config.tracking.run_name or (parent.point_name if parent else run_name(command.overrides, identity))
    if client is None:
        tracker = NullTracker(folder, name, config.resume)
        if parent and parent.tests and not tracker.finished:
            raise UserError(CHANGED)
        return tracker
    from experiments.runs.tracker import Tracker  # imports mlflow

    return Tracker(config, client, command.overrides, identity, name, splits, folder, parent)
