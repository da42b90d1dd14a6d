"""The run that a configuration describes: identified, locked, tracked, and marked if it is interrupted or fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from experiments.config import MODELS, Config, UserError
from experiments.config.command_line import Command
from experiments.config.keys import run_name
from experiments.config.published import TIMM
from experiments.data import Splits
from experiments.models.classifier import Classifier, list_layers
from experiments.runs.active import ActiveRun
from experiments.runs.fingerprint import folder_of, identify
from experiments.runs.following import Following
from experiments.runs.lock import locked
from experiments.runs.null_tracker import NullTracker
from experiments.runs.pool import Pool
from experiments.runs.provenance import CHANGED, ParentRun
from experiments.runs.time_limit import TimeLimit
from experiments.runs.trunks import Trunk
from experiments.training.ranks import OneProcess, Ranks

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from experiments.runs.tracker import Tracker


@contextlib.contextmanager
def started(
    config: Config,
    command: Command,
    splits: Splits,
    model: Classifier,
    device: torch.device,
    parent: ParentRun | None,
    ranks: OneProcess | Ranks = OneProcess(),  # noqa: B008 - immutable
) -> Iterator[ActiveRun]:
    """The run, for this process and the others of `ranks`; if an exception leaves the block, it is marked as KILLED or FAILED.

    Raises:
        UserError: the network cannot be exported, another process works on the run (a point of a multirun waits for it),
            or MLflow cannot be reached.
    """
    run: contextlib.AbstractContextManager[ActiveRun]
    if ranks.leads:
        run = _leading(config, command, splits, model, device, parent, ranks)
    else:
        run = contextlib.nullcontext(_following(config, command, splits, model, device, ranks))
    with run as active, ranks.watching():
        yield active


@contextlib.contextmanager
def _leading(
    config: Config,
    command: Command,
    splits: Splits,
    model: Classifier,
    device: torch.device,
    parent: ParentRun | None,
    ranks: OneProcess | Ranks,
) -> Iterator[ActiveRun]:
    """The run in the only process, or in that which writes and logs."""
    client = _client(config, model, splits, patient=parent is not None) if config.tracking.uri else None
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
        trunk = Trunk.of(config, len(splits.train), *digests, device, folder, tracker.run_id, ranks.count)
        pool = Pool(parent.folder, config.sweep.checkpoints_gb) if parent and parent.folder else None
        forks = parent is not None and parent.forks and config.resume
        waiting = pool.turn(trunk) if pool and forks and not tracker.finished else contextlib.nullcontext()
        try:
            with waiting, limit.running():
                yield ActiveRun(
                    config,
                    command,
                    splits,
                    splits,
                    layers,
                    device,
                    test,
                    folder,
                    tracker,
                    limit,
                    trunk,
                    pool,
                    forks,
                    ranks,
                )
        except BaseException as error:
            if not tracker.finished:  # a finished run is only shown; an error there does not change its status
                tracker.fail(error)
            raise


def _client(config: Config, model: Classifier, splits: Splits, patient: bool) -> MlflowClient:
    """The store that the run is logged in, if the network can be exported; connected before a folder is made."""
    from experiments.runs import store  # imports mlflow

    if config.model.target not in MODELS or config.model.target == TIMM:
        from experiments.runs.export import check_export

        check_export(model, config.model.choice, splits.image_shape)
    assert config.tracking.uri is not None
    return store.connect(config.tracking.uri, patient=patient)


def _following(
    config: Config, command: Command, splits: Splits, model: Classifier, device: torch.device, ranks: OneProcess | Ranks
) -> ActiveRun:
    """The run in a process that does not lead: it reads and writes no file of the run."""
    layers, folder = list_layers(model, splits.image_shape, config.training.unfreeze_epoch), Path(os.devnull)
    limit, tracker = TimeLimit.of(config, folder, splits, None), Following()
    digests = splits.digest, model.weights_digest
    trunk = Trunk.of(config, len(splits.train), *digests, device, folder, tracker.run_id, ranks.count)
    test = config.evaluate_test is not False
    return ActiveRun(
        config, command, splits, splits, layers, device, test, folder, tracker, limit, trunk, None, False, ranks
    )


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
