"""A run under way: its state is restored, saved and logged here, and it is ended.

If several processes train it, all of them call the same methods. Rank 0 decides, writes and logs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from experiments.config import Config
from experiments.config.command_line import Command
from experiments.config.wording import counted
from experiments.data import Images, Splits
from experiments.data.batches import Batches
from experiments.data.membership import FILE, Membership
from experiments.models.classifier import Layers
from experiments.runs import origin
from experiments.runs.agreed import Agreed
from experiments.runs.checkpoint import ShouldPrune, State
from experiments.runs.checkpoint_files import previous
from experiments.runs.following import Following
from experiments.runs.forks import start_from_another
from experiments.runs.null_tracker import NullTracker
from experiments.runs.pool import Pool
from experiments.runs.saving import Saving
from experiments.runs.time_limit import TimeLimit
from experiments.runs.trunks import Trunk
from experiments.training.devices import continue_with
from experiments.training.evaluation import batch_size
from experiments.training.learner import Learner, training_batches
from experiments.training.loop import Progress
from experiments.training.ranks import OneProcess, Ranks

if TYPE_CHECKING:
    from experiments.runs.tracker import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveRun:
    """A run that only this process works on, or this one and others that torchrun has started.

    Attributes:
        inputs: what is trained, validated and tested on: the splits, or frozen features of their images.
        layers: of its network.
        test: whether to evaluate it on the test set.
        folder: has its checkpoint, and its artifacts until they are logged.
        trunk: by which other runs with the same first epochs are found.
        pool: of its multirun.
        forks: the points of the multirun may share their first epochs, so its checkpoints are kept there.
        ranks: the processes that train it.
        origin: files that say what it was made from.
    """

    config: Config
    command: Command
    splits: Splits
    inputs: Splits
    layers: Layers
    device: torch.device
    test: bool
    folder: Path
    tracker: Tracker | NullTracker | Following
    limit: TimeLimit
    trunk: Trunk
    pool: Pool | None
    forks: bool
    ranks: OneProcess | Ranks
    origin: dict[str, bytes] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @functools.cached_property
    def batches(self) -> Batches:
        """The training set."""
        train, validation = self.inputs.train, self.inputs.validation
        return training_batches(self.config, train, self.device, validation, rows=self.ranks.rows)

    @functools.cached_property
    def validation(self) -> Batches:
        """The part of the validation set that this process evaluates."""
        return self._batches_of(self.ranks.part(self.inputs.validation))

    def _batches_of(self, images: Images) -> Batches:
        streamed = None if self.device.type == "cpu" else self.batches.streamed  # a GPU has room for both, or for none
        size, threads = batch_size(self.splits.image_shape, self.device.type), self.config.data.workers
        return Batches(images, size, self.device, streamed=streamed, threads=threads)

    @property
    def is_complete(self) -> bool:
        """It was finished before, and evaluated on the test set if `test`."""
        return self.ranks.decided(lambda: self.tracker.finished and (self.tracker.tested or not self.test))

    def restore(self, learner: Learner, should_prune: ShouldPrune) -> State:
        """The state in which the last process left the training; without one, that of another run, or before the first epoch."""
        state = State.fresh(learner)
        if self.ranks.leads:
            self._restore(state, should_prune)
            if state.remaining:
                self.origin.update(origin.note(self.artifacts, state, self.splits.digest))
        self._hand_on(state)
        return state

    def _hand_on(self, state: State) -> None:
        """Give the state of rank 0 to the other processes."""

        def give() -> dict[str, Any]:
            content = state.content(self.tracker.run_id, self.config, self.splits)
            return {"content": content, "ended": [state.pruned, state.out_of_time]}

        def take(given: dict[str, Any]) -> None:
            state.take(given["content"])
            state.pruned, state.out_of_time = given["ended"]

        self.ranks.hand_on(give, take)

    def _restore(self, state: State, should_prune: ShouldPrune) -> None:
        used = None
        if self.config.resume:
            if state.restore(self.checkpoint, self.tracker.run_id) or self.tracker.restore(state):
                self._note_processes(state)
                continue_with(self.tracker.threads, self.config)
                written = self.trunk.written()
                used = 0 if state.moved else written.threads if written else self.tracker.threads
                self._keep(state)
                state.prune(should_prune, first_epoch=1)
            else:
                self._fork(state, should_prune)
        threads = torch.get_num_threads()
        alike = used in (None, threads) and state.processes in (0, self.ranks.count)
        self.trunk.write(threads if alike else 0)  # 0: some epochs in another way, or elsewhere
        if self.tracker.finished:  # it is only tested
            state.out_of_time = len(state.remaining) > 0
        else:
            self.limit.stops(state)

    def restore_last_epoch(self, state: State) -> bool:
        """Set the state to that after the last epoch; False, and nothing changes, if that was not the first one."""
        there = self.ranks.decided(lambda: state.restore(self.checkpoint, self.tracker.run_id, whole_epochs=True))
        if there:
            self._hand_on(state)
        return there

    def ends(self, state: State, stop: bool, should_prune: ShouldPrune) -> bool:
        """Whether the training ends after the last epoch of the history; `stop`: early stopping ends it."""

        def decide() -> tuple[bool, bool | str, bool]:
            end = stop or self.limit.stops(state) or state.prune(should_prune, len(state.history))
            return end, state.pruned, state.out_of_time

        end, state.pruned, state.out_of_time = self.ranks.decided(decide)
        return end

    def _note_processes(self, state: State) -> None:
        """Tell the user that sums of another number of processes are rounded in another way."""
        if state.processes not in (0, self.ranks.count):
            before, now = (counted(count, "process", "processes") for count in (state.processes, self.ranks.count))
            log.warning("the run continues with %s after %s: the last digits may differ", now, before)

    def _fork(self, state: State, should_prune: ShouldPrune) -> None:
        """Continue another run from the last epoch that both share, if it has left a checkpoint of such an epoch."""
        fork = start_from_another(
            state, self.trunk, self.pool, lambda: self._batches_of(self.inputs.validation), should_prune
        )
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
        if isinstance(self.ranks, Ranks):
            return Agreed(self.ranks, state, self.save, minutes, shown)
        return contextlib.nullcontext(shown) if minutes is None else Saving(state, self.save, minutes, shown)

    def save(self, state: State) -> None:
        """Write the checkpoint."""
        if not self.ranks.leads:
            return
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

        def close() -> None:
            self._end(state)
            self.tracker.prune(state.why_pruned, results)

        self.ranks.decided(close)
        return results

    def keep(self, state: State, measured: dict[str, float]) -> None:
        """Log what a run has whose training failed after the last epoch of `state`, without a test; see `finish`."""
        results = state.results() | measured
        self.ranks.decided(lambda: self.tracker.keep(results, self.artifacts, state.final_model(), self.splits))

    def finish(self, state: State, measured: dict[str, float]) -> dict[str, float]:
        """Close the run as finished, with its artifacts and model; its final metrics, with those `measured` after training."""
        results = state.results() | measured

        def close() -> None:
            self.limit.note(state)
            origin.write(self.artifacts, self.origin)
            Membership.of(self.splits).write(self.artifacts / FILE)
            self._end(state)
            self.tracker.finish(results, self.artifacts, state.final_model(), self.splits)

        self.ranks.decided(close)
        self.keep_one_checkpoint()
        return results

    def keep_one_checkpoint(self) -> None:
        """Delete the checkpoint before the last one of a finished run, also after a kill."""
        self.ranks.decided(lambda: previous(self.checkpoint).unlink(missing_ok=True))
