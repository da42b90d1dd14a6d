"""The jobs of a launcher: they run in this process, in another one, or on another machine.

Imports nothing slow (torch, MLflow), so that mistakes in a multirun are reported at once.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.comparison.points import HISTORY, Point, Status
from experiments.config import Config, UserError
from experiments.config.command_line import Command
from experiments.config.composition import parse_composed
from experiments.config.foreign import mask_passwords
from experiments.config.keys import flatten, point_name
from experiments.sweep import times
from experiments.sweep.budget import USED_UP, Budget
from experiments.sweep.costs import Costs
from experiments.sweep.sharing import may_share
from experiments.sweep.workers import common_threads

if TYPE_CHECKING:
    from experiments.runs.provenance import ParentRun

TERMINATED = "its process terminated unexpectedly: killed, or out of memory"


@dataclass(frozen=True)
class GridJob:
    """Trains one run of a grid and returns it as a point; sent to the process that trains.

    Attributes:
        folder: of the multirun.
        parent: id of the multirun's run in MLflow; None without MLflow.
        varied: the keys that the names of the runs consist of.
    """

    folder: Path
    parent: str | None
    varied: tuple[str, ...]
    budget: Budget
    costs: Costs

    def __call__(self, composed: DictConfig) -> Point:
        command = enter_job()
        cost = self.costs.of(command.overrides)
        if not self.budget.fits(cost, times.key(command.overrides)):
            return waiting_point(command.overrides, self.varied)
        from experiments.runs.provenance import ParentRun  # imports torch

        parent = ParentRun(self.parent, point_name(command.overrides, self.varied), forks=may_share(self.varied))
        limit = Limit(self.budget, times.Stopwatch(self.folder, times.key(command.overrides), cost))
        return run_point(parse_composed(composed), command, self.folder, parent, limit)


@dataclass(frozen=True)
class TestJob:
    """Evaluates a finished run of a multirun on the test set, and returns it as a point.

    Attributes:
        folder: of the multirun.
        config: of the multirun; says where its runs are stored.
        parent: names the run.
        overrides: of the run, for its report.
    """

    folder: Path
    config: Config
    parent: ParentRun
    overrides: tuple[str, ...]

    def __call__(self, composed: DictConfig) -> Point:
        command = enter_job().single(self.overrides)
        try:
            config = parse_composed(composed) if self.config.tracking.uri is None else self._saved()
        except UserError as error:
            return Point("", self.parent.point_name, "failed", {}, {}, {}, str(error))
        config = dataclasses.replace(config, evaluate_test=True, resume=True)
        return run_point(config, command, self.folder, self.parent)

    def _saved(self) -> Config:
        """The run's own configuration: files in conf/ may have changed since it was trained."""
        from experiments.runs.finished import load_run  # imports torch, MLflow

        assert self.parent.tests and self.config.tracking.uri
        saved = load_run(self.parent.tests, uri=self.config.tracking.uri).config
        return dataclasses.replace(saved, tracking=self.config.tracking, outputs=self.config.outputs)


def enter_job() -> Command:
    """Change to the folder where the multirun was started, and return the command of the current job.

    Ray's workers start in another folder, and relative paths must mean the same there.
    """
    job = HydraConfig.get()
    if Path(job.runtime.cwd).is_dir():
        os.chdir(job.runtime.cwd)
    return Command.from_hydra(job, job.overrides.task)


@dataclass(frozen=True)
class Limit:
    """What may stop a point after an epoch: the budget, and a pruner.

    Attributes:
        stopwatch: notes what the point takes.
        should_prune: called with the number and the metrics of every epoch.
    """

    budget: Budget
    stopwatch: times.Stopwatch
    should_prune: Callable[[int, Mapping[str, float]], bool] = lambda epoch, metrics: False

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> bool | str:
        self.stopwatch.epoch(epoch, metrics)
        return self.should_prune(epoch, metrics) or (self.budget.ends_after(self.stopwatch) and USED_UP)


def run_point(config: Config, command: Command, folder: Path, parent: ParentRun, limit: Limit | None = None) -> Point:
    """Train one point of the multirun in `folder`. An error is recorded as its reason of failure; other points continue."""
    from experiments.experiment import never, run
    from experiments.reports.terminal import silenced
    from experiments.runs.provenance import automatic_threads

    try:
        if config.threads is None:
            threads = common_threads(folder, functools.partial(automatic_threads, config))
            config = dataclasses.replace(config, threads=threads)
        with silenced(parent.run_id is not None):
            timed = dataclasses.replace(command, started=time.time())
            result = run(config, timed, dataclasses.replace(parent, folder=folder), limit or never)
    except Exception as error:
        if limit:
            limit.stopwatch.fail()
        reason = mask_passwords(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        return Point("", parent.point_name, "failed", _settings(config), {}, {}, reason, command.overrides)
    if limit:
        limit.stopwatch.end(result.history, stopped=result.pruned.endswith(USED_UP))
    history = {key: [epoch[key] for epoch in result.history if key in epoch] for key in HISTORY}
    # a point that the budget has stopped goes on with the next command, as one that was killed does
    status: Status = "finished" if not result.pruned else "killed" if result.pruned.endswith(USED_UP) else "pruned"
    point = Point(result.run_id, result.name, status, _settings(config), history, result.metrics, result.pruned)
    return dataclasses.replace(point, overrides=command.overrides, cut_short=result.cut_short)


def _settings(config: Config) -> dict[str, str]:
    return {key: str(mask_passwords(value)) for key, value in flatten(config.to_dict())}


def failed_point(overrides: Sequence[str], varied: Sequence[str], reason: str) -> Point:
    """A point that failed before it had a run."""
    return Point("", point_name(overrides, varied), "failed", {}, {}, {}, reason, overrides)


def waiting_point(overrides: Sequence[str], varied: Sequence[str]) -> Point:
    """A point that was not started, because of the budget."""
    return Point("", point_name(overrides, varied), "not started", {}, {}, {}, USED_UP, overrides)
