"""A search: workers that take trials from a study, train them, and tell what came of them.

A job of the launcher is a worker, not a trial: so none waits for a batch to end, and a second process can help.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import filelock
from omegaconf import DictConfig

from experiments.comparison.points import Point
from experiments.config import UserError
from experiments.config.command_line import Command
from experiments.config.keys import point_name
from experiments.config.loading import compose_config
from experiments.reports import terminal
from experiments.runs.provenance import ParentRun
from experiments.sweep.jobs import enter_job, run_trial
from experiments.sweep.multirun import Multirun
from experiments.sweep.samplers import Spec, check
from experiments.sweep.space import Space
from experiments.sweep.study import DIED, ClaimedTrial, Study
from experiments.sweep.workers import worker_heartbeat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """Trains trial after trial until none is left; gives those that failed."""

    spec: Spec
    parent: str

    def __call__(self, composed: DictConfig) -> list[Point]:
        command = enter_job()
        study = Study(self.spec)
        failed = []
        with worker_heartbeat(self.spec.folder) as worker:
            while (taken := study.take(worker)) is not None:
                point = self._train(study, taken, command)
                study.tell(taken, point)
                if point.status == "failed":
                    failed.append(point)
        return failed

    def _train(self, study: Study, taken: ClaimedTrial, command: Command) -> Point:
        overrides = [*command.overrides, *(f"{key}={value}" for key, value in taken.params.items())]
        name = point_name(overrides, list(self.spec.space))
        try:
            config = compose_config(overrides)
        except UserError as error:
            return Point("", name, "failed", {}, {}, {}, str(error), overrides)

        def should_prune(epoch: int, metrics: Mapping[str, float]) -> bool:
            value = metrics[self.spec.objectives[0]]
            return len(self.spec.objectives) == 1 and study.report(taken, epoch, value)

        return run_trial(config, command.single(overrides), ParentRun(self.parent, name), should_prune)


def run(multirun: Multirun, settings: Mapping[str, Any], space: Space, fixed: Sequence[str], workers: int) -> None:
    """Search until `n_trials` have come to their end, alone or together with other processes, and conclude.

    Args:
        settings: of the sweeper.

    Raises:
        UserError: where the settings contradict each other, or another process has the search under way.
    """
    config = multirun.config
    if config.tracking.uri is None:
        raise UserError("tracking=none: a search keeps its points in MLflow, so it needs tracking=mlflow")
    if len(config.sweep.objectives) > 1 and "NopPruner" not in settings["pruner"]["_target_"]:
        raise UserError("hydra/sweeper/pruner: with several objectives no trial can be pruned; take pruner=none")
    for key, wanted in {"n_trials": (int,), "n_jobs": (int, type(None))}.items():
        if type(settings[key]) not in wanted or (settings[key] is not None and settings[key] < 1):
            raise UserError(f"hydra.sweeper.{key}={settings[key]}: must be a whole number of at least 1")
    spec = Spec(
        multirun.folder.name,
        settings["storage"],
        settings["sampler"],
        settings["pruner"],
        space,
        settings["n_trials"],
        config.sweep.objectives,
        multirun.folder.resolve(),
    )
    check(spec)
    with contextlib.ExitStack() as held:
        alone = _own(multirun, held)
        if not alone and not config.sweep.join:
            held.enter_context(multirun.held())  # says who has it
        with filelock.FileLock(multirun.folder / "setup.lock"):
            study = Study(spec, anew=alone and not config.resume)
            study.prepare(others=config.sweep.join)
        with multirun.opened(alone):
            with multirun.watched(spec.n_trials):
                failed = _work(multirun, study, fixed, workers)
            alone = alone or _own(multirun, held)
            if not alone:
                terminal.console.print("nothing is left to take; the process that began the search concludes it")
                return
            while study.under_way or study.waiting:  # those of a process that helps, or whose worker died
                study.bury(others=config.sweep.join)
                if study.waiting:
                    failed += _work(multirun, study, fixed, 1)  # alone, so that one that dies takes no other with it
                time.sleep(1)
            multirun.conclude([*failed, *(_lost(params, fixed) for params in study.died)])


def _own(multirun: Multirun, held: contextlib.ExitStack) -> bool:
    """Whether this process has the multirun for its own from now on."""
    try:
        held.enter_context(multirun.held())
    except UserError:
        return False
    return True


def _work(multirun: Multirun, study: Study, fixed: Sequence[str], workers: int) -> list[Point]:
    """Let workers take trials until none waits; the failed ones."""
    count = min(workers, len(study.waiting))
    if not count:
        return []
    assert multirun.parent
    try:
        done = multirun.launch([list(fixed)] * count, Worker(study.spec, multirun.parent.run_id))
    except Exception as error:
        log.warning("a worker ended without a word (%s)", error)
        return []
    return [point for failed in done for point in failed]


def _lost(params: Mapping[str, Any], fixed: Sequence[str]) -> Point:
    overrides = [*fixed, *(f"{key}={value}" for key, value in params.items())]
    return Point("", point_name(overrides, list(params)), "failed", {}, {}, {}, DIED, overrides)
