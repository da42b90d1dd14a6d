"""The run that a configuration stands for: identified, locked, tracked, and marked where it ends too early."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.config import MODELS, Config
from experiments.config.command_line import Command
from experiments.data import Splits
from experiments.data.batches import Batches
from experiments.models.classifier import Classifier
from experiments.runs.checkpoint import State
from experiments.runs.fingerprint import fingerprint
from experiments.runs.lock import locked
from experiments.runs.null_tracker import NullTracker
from experiments.runs.provenance import ParentRun
from experiments.training.evaluation import batch_size
from experiments.training.learner import Learner

if TYPE_CHECKING:
    from experiments.runs.tracker import Tracker


@dataclass(frozen=True)
class ActiveRun:
    """A run that this process works on, and no other.

    Attributes:
        folder: holds its checkpoint, and its artifacts until they are logged.
    """

    config: Config
    splits: Splits
    device: torch.device
    folder: Path
    tracker: Tracker | NullTracker

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @functools.cached_property
    def batches(self) -> Batches:
        """The training set."""
        training = self.config.training
        return Batches(self.splits.train, training.batch_size, self.device, training.sampler)

    @functools.cached_property
    def validation(self) -> Batches:
        """The validation set."""
        return Batches(self.splits.validation, batch_size(self.splits.image_shape), self.device)

    def is_complete(self, test: bool) -> bool:
        """Whether it was finished before; with `test`, whether it was evaluated on the test set as well."""
        return self.tracker.finished and (self.tracker.tested or not test)

    def restore(self, learner: Learner) -> State:
        """The state of training as the last process left it; the state before the first epoch where there is none."""
        state = State.fresh(learner)
        if self.config.resume:
            _ = state.restore(self.checkpoint, self.tracker.run_id) or self.tracker.restore(state)
        return state

    def save(self, state: State) -> None:
        state.save(self.checkpoint, self.tracker.run_id, self.config, self.splits)


@contextlib.contextmanager
def started(
    config: Config,
    command: Command,
    splits: Splits,
    model: Classifier,
    device: torch.device,
    parent: ParentRun | None,
) -> Iterator[ActiveRun]:
    """The run, for this process alone; a run that does not reach its end is marked as KILLED or FAILED.

    Raises:
        UserError: the network cannot be exported, another process works on the run, or MLflow cannot be reached.
    """
    if config.model.target not in MODELS and config.tracking.uri:
        from experiments.runs.export import check_export  # imports mlflow

        check_export(model, config.model.target, splits.image_shape)
    identity = fingerprint(config, device.type, splits.digest)
    with locked(_folder(config, identity), command) as folder:
        tracker = _tracker(config, command, identity, splits, folder, parent)
        try:
            yield ActiveRun(config, splits, device, folder, tracker)
        except BaseException as error:
            if not tracker.finished:  # a finished run is only shown, which may fail without harm
                tracker.fail(error)
            raise


def _folder(config: Config, identity: str) -> Path:
    return Path(config.outputs) / "runs" / (identity[:16] + ("" if config.tracking.uri else "-untracked"))


def _tracker(
    config: Config, command: Command, identity: str, splits: Splits, folder: Path, parent: ParentRun | None
) -> Tracker | NullTracker:
    if config.tracking.uri is None:
        return NullTracker(folder, config, identity, parent)
    from experiments.runs.tracker import Tracker  # imports mlflow

    return Tracker(config, command.overrides, identity, splits, parent)
