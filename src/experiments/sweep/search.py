"""A search: workers claim trials from a study, train them, and store their outcomes.

A job of the launcher is a worker, not a trial: no worker waits for the end of a batch, and a second process can help.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import filelock
from omegaconf import DictConfig

from experiments.comparison.points import Point
from experiments.config import Config, UserError
from experiments.config.command_line import Command
from experiments.config.durations import seconds
from experiments.config.keys import flatten, key_of, point_name, role_of
from experiments.config.loading import compose_config
from experiments.config.overrides import MOST_RUNS, as_meant
from experiments.sweep import times
from experiments.sweep.budget import Budget
from experiments.sweep.costs import cost_of
from experiments.sweep.ending import finalize
from experiments.sweep.jobs import TERMINATED, Limit, enter_job, failed_point, run_point
from experiments.sweep.multirun import Multirun
from experiments.sweep.samplers import Spec, check_spec
from experiments.sweep.sharing import may_share
from experiments.sweep.space import Space, lowest
from experiments.sweep.study import Study
from experiments.sweep.trials import ClaimedTrial
from experiments.sweep.workers import worker_heartbeat

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """Trains one trial after another until none is left, and returns them.

    Attributes:
        parent: id of the multirun's run in MLflow.
    """

    spec: Spec
    parent: str
    budget: Budget

    def __call__(self, composed: DictConfig) -> list[Point]:
        command = enter_job()
        study = Study(self.spec, self.budget)
        points = []
        with worker_heartbeat(self.spec.folder) as worker:
            while (claimed := study.claim(worker)) is not None:
                points.append(self._train(study, claimed, command))
                study.finish(claimed, points[-1])
        return points

    def _train(self, study: Study, claimed: ClaimedTrial, command: Command) -> Point:
        from experiments.runs.provenance import ParentRun  # imports torch

        overrides, varied = _with_params(command.overrides, claimed.params), list(study.spec.space)
        try:
            config = compose_config(overrides)
        except UserError as error:
            return failed_point(overrides, varied, str(error))
        if claimed.promoted:  # also with resume=false, which concerns the runs of earlier commands
            config = dataclasses.replace(config, resume=True)
        budget = self.budget
        if claimed.seconds:  # its training ends after the last epoch that fits, instead of being stopped
            training = dataclasses.replace(
                config.training, budget=f"{min(claimed.seconds, seconds(config.training.budget)):.0f}s"
            )
            config, budget = dataclasses.replace(config, training=training), dataclasses.replace(budget, total=math.inf)

        def should_prune(epoch: int, metrics: Mapping[str, float]) -> bool:
            value = metrics[self.spec.objectives[0]]
            return len(self.spec.objectives) == 1 and study.report(claimed, epoch, value)

        parent = ParentRun(self.parent, point_name(overrides, varied), forks=may_share(varied))
        cost = cost_of(config, pruned="NopPruner" not in self.spec.pruner["_target_"])
        limit = Limit(budget, times.Stopwatch(self.spec.folder, times.key(overrides), cost), should_prune)
        return run_point(config, command.single(overrides), self.spec.folder, parent, limit)


def run(multirun: Multirun, settings: Mapping[str, Any], space: Space, fixed: Sequence[str], workers: int) -> None:
    """Search until `n_trials` have ended, alone or together with other processes, and finalize the multirun.

    Args:
        settings: of the sweeper.
        fixed: the overrides that all trials have.

    Raises:
        UserError: Optuna does not accept the settings, or another process is running the search.
    """
    config = multirun.config
    sampler, pruner, folder = settings["sampler"], settings["pruner"], multirun.folder
    n_trials, objectives = settings["n_trials"] or MOST_RUNS, config.sweep.objectives
    spec = Spec(folder.name, settings["storage"], sampler, pruner, space, n_trials, objectives, folder.resolve())
    check_spec(spec)
    with contextlib.ExitStack() as lock:
        owner = _become_owner(multirun, lock)
        budget = Budget.start(config, folder, workers, known=False)
        with filelock.FileLock(folder / "setup.lock"):
            study = Study(spec, budget, anew=owner and not config.resume)
            study.fill_queue(others=config.sweep.join)
        with multirun.parent_run(owner):
            with multirun.progress(budget, None if study.rungs else spec.total):
                outcomes = _train_all(multirun, study, fixed, workers, None if owner else lock)
            if outcomes is None:
                from experiments.reports import terminal  # imports torch

                terminal.console.print("no trials are left; the process that started the search will finish it")
                return
            budget.tell(outcomes, study.not_started if settings["n_trials"] else 0)
            if study.rungs and budget.limited and not study.completed:
                _warn_that_time_was_short(config, any(point.cut_short for point in outcomes))
            outcomes += [failed_point(_with_params(fixed, params), list(params), TERMINATED) for params in study.died]
            finalize(multirun, outcomes)


def _warn_that_time_was_short(config: Config, trained: bool) -> None:
    """Say that no trial has trained to its end; `trained`: the best ones have as long as the time lasted."""
    budget = f"sweep.budget={config.sweep.budget}"
    if trained:
        text = "%s: too short for training.epochs=%s: the best trial was trained while the time lasted"
        log.warning(text, budget, config.training.epochs)
    else:
        log.warning("%s: too short for another epoch; set a larger budget, or fewer training.epochs", budget)


def identifying(
    space: Space, fixed: Sequence[str], settings: Mapping[str, Any], objectives: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The arguments of `identity.identify`: the choices of every key, and what else decides which trials are tried.

    A range is represented by its lower end, and by itself as text.
    """
    choices = {key_of(text): [text] for text in fixed}
    for key, found in space.items():
        choices[key] = [as_meant(f"{key}={value}") for value in getattr(found, "choices", ())] or lowest({key: found})
    ranges = {key: str(found) for key, found in space.items()}
    sweeper = {
        key: value
        for key, value in flatten(settings)
        if role_of(f"hydra.sweeper.{key}").identifies_multirun
        and not key.startswith(("params", "spaces"))  # in the choices
    }
    return choices, {"space": ranges, "sweeper": sweeper, "objectives": list(objectives)}


def _become_owner(multirun: Multirun, lock: contextlib.ExitStack) -> bool:
    """Lock the multirun for this process; False if another process has the lock and this one helps.

    Raises:
        UserError: another process has the lock, and sweep.join is false.
    """
    try:
        lock.enter_context(multirun.locked())
    except UserError:
        if not multirun.config.sweep.join:
            raise
        return False
    return True


def _train_all(
    multirun: Multirun, study: Study, fixed: Sequence[str], workers: int, lock: contextlib.ExitStack | None
) -> list[Point] | None:
    """Train trials until none is left; None if another process owns the multirun and will finish it.

    Args:
        lock: where this process, which helps, may lock the multirun if its owner has ended; None if it is the owner.
    """
    outcomes: list[Point] = []
    while True:
        outcomes += _work(multirun, study, fixed, workers)
        if lock is None or _become_owner(multirun, lock):
            lock = None
            outcomes += _wait_for_others(multirun, study, fixed)
            if not study.promote():
                return outcomes
        elif not study.continues:
            return None
        else:
            time.sleep(1)


def _work(multirun: Multirun, study: Study, fixed: Sequence[str], workers: int) -> list[Point]:
    """Launch workers, which claim trials until there is none; returns these trials."""
    count = min(workers, study.open)
    if not count:
        return []
    assert multirun.parent
    multirun.clock.keeping = True
    try:
        trained = multirun.launch([list(fixed)] * count, Worker(study.spec, multirun.parent.run_id, study.budget))
    except Exception as error:
        log.warning("worker: %s (%s)", TERMINATED, error)
        return []
    return [point for points in trained for point in points]


def _wait_for_others(multirun: Multirun, study: Study, fixed: Sequence[str]) -> list[Point]:
    """Wait for the trials of helping processes; train those whose workers died, and return these."""
    trained: list[Point] = []
    while study.has_running or study.open:
        study.fail_stale(others=multirun.config.sweep.join)
        if study.open:
            trained += _work(multirun, study, fixed, 1)  # one worker: if its process dies, no other one dies with it
        else:
            time.sleep(1)
    return trained


def _with_params(overrides: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    return [*overrides, *(as_meant(f"{key}={value}") for key, value in params.items())]
