"""A multirun under way: launched, watched, and concluded. What its points are, the sweepers say."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from experiments.comparison.points import Point, ranked
from experiments.config import Config, UserError
from experiments.config.command_line import MASK, Command
from experiments.config.keys import multirun_id, multirun_name, point_name, role_of, standalone_overrides
from experiments.runs.lock import locked
from experiments.sweep.jobs import RunPoint

if TYPE_CHECKING:
    from experiments.comparison.comparison import Comparison
    from experiments.sweep.parent_run import Parent


ENDED = ("finished", "pruned", "failed")
log = logging.getLogger(__name__)


class Multirun:
    """What the sweepers share.

    Attributes:
        config: that of the first point; what concerns all is taken from it.
        name: its own, or made of the overrides.
        folder: where its report, and the locks of those at work, lie.
        parent: its run in MLflow; None where nothing is tracked. It is there inside `opened`.
    """

    def __init__(self, config: Config, hydra_config: DictConfig, context: HydraContext, varied: Sequence[str]) -> None:
        self.config = config
        self.varied = tuple(varied)
        self.parent: Parent | None = None
        self._hydra_config, self._context = hydra_config, context
        overrides = list(hydra_config.hydra.overrides.task)
        self.command = Command.from_hydra(hydra_config.hydra, [*hydra_overrides(hydra_config), *overrides], True)
        self.name = config.sweep.name or multirun_name(self.command.overrides)
        self._launched = 0

    @property
    def folder(self) -> Path:
        return Path(self.config.outputs) / "sweeps" / multirun_id(self.config, self.name)

    @contextlib.contextmanager
    def opened(self, alone: bool = True) -> Iterator[None]:
        """Its parent run; where the work ends before its time, that is marked as KILLED or FAILED.

        Args:
            alone: no other process has it under way.
        """
        from experiments.sweep.parent_run import Parent

        if self.config.tracking.uri is None:
            yield
            return
        self.parent = Parent(self.config, self.name, self.command.overrides)
        try:
            yield
        except BaseException as error:
            if alone and not isinstance(error, SystemExit):
                self.parent.stop("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For this process alone.

        Raises:
            UserError: where another has it under way.
        """
        with locked(self.folder, self.command, "multirun", "wait for it; a search can be joined with sweep.join=true"):
            yield

    def watched(self, total: int) -> contextlib.AbstractContextManager[None]:
        """Shows how `total` points come along; without MLflow each tells of itself."""
        if self.parent is None:
            return contextlib.nullcontext()
        from experiments.sweep.progress import show_progress

        return show_progress(self.parent, total, self.config.sweep.objectives[0])

    def run(self, jobs: Sequence[Sequence[str]]) -> list[Point]:
        """Train the points that have these overrides; the results in the same order.

        A launcher whose process dies loses all its jobs: they are launched again, where that fails one by one.
        """
        task = RunPoint(self.parent.run_id if self.parent else None, self.varied)
        for _ in range(2):
            try:
                return self.launch(jobs, task)
            except Exception as error:
                log.warning("a process of the launcher ended without a word (%s); its points are launched again", error)
        results: list[Point] = []
        for job in jobs:
            try:
                results += self.launch([job], task)
            except Exception as error:
                lost = f"its process ended without a word, killed or out of memory ({type(error).__name__})"
                results.append(Point("", point_name(job, self.varied), "failed", {}, {}, {}, lost, job))
        return results

    def launch(self, jobs: Sequence[Sequence[str]], task: Any) -> list[Any]:
        """What `task` returns for each job, from Hydra's launcher; raises what it raises where one of its processes dies."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=task, config=self._hydra_config
        )
        returns = launcher.launch([list(job) for job in jobs], initial_job_idx=self._launched)
        self._launched += len(jobs)
        return [done.return_value for done in returns]

    def conclude(self, outcomes: Sequence[Point]) -> None:
        """Test the winner, write the report, close the parent, and tell; exit code 1 where points failed."""
        from experiments.comparison.comparison import Comparison

        points = self._points(outcomes)
        best = ranked(points, self.config.sweep.objectives[0])
        if best and self.config.evaluate_test is None and "test/loss" not in best[0].metrics:
            overrides = [self._unmasked(text) for text in standalone_overrides(best[0].overrides)]
            (tested,) = self.run([[*overrides, "evaluate_test=true", "resume=true"]])
            tested = dataclasses.replace(tested, name=best[0].name, settings=best[0].settings)
            points = [tested if point is best[0] else point for point in points]
        comparison = Comparison(self.name, self.command, points, self.config.sweep.objectives)
        self._keep(comparison)
        if comparison.count("failed"):
            sys.exit(1)

    def _unmasked(self, text: str) -> str:
        """An override with its password, which MLflow does not keep."""
        given = (other for other in self.command.overrides if other.partition("=")[0] == text.partition("=")[0])
        return next(given, text) if MASK in text else text

    def _points(self, outcomes: Sequence[Point]) -> list[Point]:
        """All points that the parent has, and those that failed before MLflow knew them."""
        if self.parent is None:
            return list(outcomes)
        failed = {point.name: point for point in outcomes if point.status == "failed"}
        known = [point for point in self.parent.points() if point.status in ENDED or point.name not in failed]
        names = {point.name for point in known}
        return known + [point for point in failed.values() if point.name not in names]

    def _keep(self, comparison: Comparison) -> None:
        from experiments.comparison import terminal
        from experiments.comparison.page import write

        write(self.folder / "report", comparison)
        where = str(self.folder / "report/report.html")
        if self.parent:
            self.parent.conclude(comparison, self.folder / "report")
            where += f", or {self.parent.url()}"
        terminal.show_comparison(comparison, where)


def hydra_overrides(hydra_config: DictConfig) -> list[str]:
    """Those that were typed of Hydra's own settings."""
    return [text for text in hydra_config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]


def configured(overrides: Sequence[str], varied: Sequence[str], composed: DictConfig) -> Config:
    """The configuration of a first point, with the mistakes that only concern multiruns told.

    Raises:
        UserError: listing every mistake.
    """
    from experiments.config import loading

    if whole := [key for key in varied if role_of(key).of_whole_multirun and not key.startswith("hydra")]:
        raise UserError("\n".join(f"{key}: concerns the multirun as a whole, so it has one value" for key in whole))
    config = loading.compose_config(overrides)
    jobs = OmegaConf.select(composed, "hydra.launcher.n_jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs == 0):
        raise UserError(f"hydra.launcher.n_jobs={jobs}: must be a whole number; -1 takes all cores")
    if config.sweep.join and "Search" not in composed.hydra.sweeper._target_:
        raise UserError("sweep.join=true: only a search can be joined (hydra/sweeper=optuna)")
    return config
