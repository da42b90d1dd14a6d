"""A multirun: it launches its jobs, shows their progress, and compares the results. The sweepers define its points.

Imports nothing slow at the top, so that mistakes are reported at once: the first job imports torch, MLflow, matplotlib.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from experiments.comparison.points import Point
from experiments.config import Config, UserError, loading
from experiments.config.command_line import Command, mask_passwords, was_interrupted
from experiments.config.keys import key_of, multirun_name, role_of
from experiments.runs import lock
from experiments.runs.pool import Pool
from experiments.sweep import times
from experiments.sweep.budget import Budget, multirun_clock
from experiments.sweep.estimate import Cost
from experiments.sweep.forecast import Forecast
from experiments.sweep.jobs import TERMINATED, GridJob, TestJob, failed_point
from experiments.sweep.sharing import side_by_side
from experiments.sweep.workers import OnGpu, describe_gpus, effective_jobs, visible_gpus

if TYPE_CHECKING:
    from experiments.sweep.parent_run import Parent


log = logging.getLogger(__name__)


class Multirun:
    """Everything that grids and searches have in common.

    Attributes:
        config: the configuration of the first point; settings that concern all points are read from it.
        name: shown to users: sweep.name, or made from the overrides.
        folder: holds the report and the locks of the processes that take part; named after the multirun's identity.
        parent: the run of the multirun in MLflow, inside `parent_run`; None without MLflow.
        pool: what its points share.
    """

    def __init__(
        self, config: Config, hydra_config: DictConfig, context: HydraContext, varied: Sequence[str], identity: str
    ) -> None:
        self.config = config
        self.folder = Path(config.outputs) / "sweeps" / identity
        self.pool = Pool(self.folder)
        self.varied = tuple(varied)
        self.clock = multirun_clock(config, self.folder)
        self.parent: Parent | None = None
        self._hydra_config, self._context = hydra_config, context
        overrides = list(hydra_config.hydra.overrides.task)
        self.command = Command.from_hydra(hydra_config.hydra, [*hydra_overrides(hydra_config), *overrides], True)
        self.name = mask_passwords(config.sweep.name or multirun_name(self.command.overrides))
        self._launched = 0

    @contextlib.contextmanager
    def parent_run(self, owner: bool = True) -> Iterator[None]:
        """The parent run in MLflow; it is marked as KILLED or FAILED if an exception leaves the block.

        Args:
            owner: no other process is responsible for the parent run.
        """
        if owner and not self.config.resume:
            self.pool.delete(count=True)
        if self.config.tracking.uri is None:
            yield
            return
        from experiments.runs import store  # imports MLflow
        from experiments.sweep.parent_run import Parent

        self.parent = Parent(self.config, self.name, self.folder, self.command)
        try:
            yield
        except BaseException as error:
            if owner and not isinstance(error, SystemExit):
                self.parent.stop(store.KILLED if was_interrupted(error) else store.FAILED)
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the multirun for this process, and count its seconds.

        Raises:
            UserError: another process has the lock.
        """
        advice = "wait for it; a search can be joined with sweep.join=true"
        with lock.locked(self.folder, self.command, "multirun", advice):
            if not self.config.resume:
                times.forget(self.folder)
            with self.clock.running():
                yield

    def progress(
        self, budget: Budget, points: Mapping[str, Cost] | int | None
    ) -> contextlib.AbstractContextManager[None]:
        """Show the progress of `points`, and how long they take; without MLflow each point prints its own progress."""
        import torch  # late, and so are the imports of it

        from experiments.reports import terminal
        from experiments.sweep.progress import show_progress

        if torch.cuda.device_count() and (shared := describe_gpus(len(self.gpus), self.workers)):
            terminal.console.print(shared)
        return show_progress(self.parent, Forecast(budget, self.clock, points), self.config.sweep.objectives[0])

    def train(self, jobs: Sequence[Sequence[str]], job: GridJob) -> list[Point]:
        """Train the points with these overrides; returns them in the same order."""
        one_by_one = self._hydra_config.hydra.launcher._target_.endswith(".BasicLauncher")
        places = range(len(jobs)) if one_by_one else side_by_side(jobs)
        trained = dict(zip(places, self.run_jobs([jobs[place] for place in places], job)))
        return [trained[place] for place in range(len(jobs))]

    @property
    def workers(self) -> int:
        """The number of points that the launcher trains at the same time; of a cluster, where it is not known, many."""
        launcher = self._hydra_config.hydra.launcher
        known = launcher.get("n_jobs") or launcher.get("array_parallelism")
        return effective_jobs(known) if known else 1 if launcher._target_.endswith(".BasicLauncher") else 64

    @functools.cached_property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs that are divided among the workers of joblib; other launchers assign them by resources of their own."""
        parallel = self._hydra_config.hydra.launcher._target_.endswith(".JoblibLauncher") and self.workers > 1
        return tuple(visible_gpus()) if parallel and self.config.device in ("auto", "cuda") else ()

    def run_jobs(self, jobs: Sequence[Sequence[str]], job: GridJob | TestJob) -> list[Point]:
        """Run the job with each list of overrides; returns the points in the same order.

        A launcher loses all its jobs when one of their processes dies: they are launched a second time, then one by one.
        """
        for _ in range(2):
            try:
                return self.launch(jobs, job)
            except Exception as error:
                log.warning("launcher: %s (%s); its points are launched again", TERMINATED, error)
        results: list[Point] = []
        for overrides in jobs:
            try:
                results += self.launch([overrides], job)
            except Exception as error:
                results.append(failed_point(overrides, self.varied, f"{TERMINATED} ({type(error).__name__})"))
        return results

    def launch(self, jobs: Sequence[Sequence[str]], job: Any) -> list[Any]:
        """Call `job` for each list of overrides, with Hydra's launcher; returns the results of the calls.

        Raises:
            Exception: whatever the launcher raises if one of its processes dies.
        """
        task = OnGpu(job, self.folder.resolve(), self.gpus, self.workers) if self.gpus else job
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self._context, task_function=task, config=self._hydra_config
        )
        returns = launcher.launch([list(overrides) for overrides in jobs], initial_job_idx=self._launched)
        self._launched += len(jobs)
        return [done.return_value for done in returns]


def hydra_overrides(hydra_config: DictConfig) -> list[str]:
    """The typed overrides of Hydra's own settings."""
    return [text for text in hydra_config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]


def compose_first(overrides: Sequence[str], varied: Sequence[str], composed: DictConfig) -> Config:
    """The configuration of the first point, after the checks that only concern multiruns.

    Raises:
        UserError: listing every mistake.
    """
    if whole := [key for key in map(key_of, varied) if role_of(key).of_whole_multirun and not key.startswith("hydra")]:
        raise UserError("\n".join(f"{key}: concerns the multirun as a whole, so it has one value" for key in whole))
    config = loading.compose_config(overrides)
    jobs = OmegaConf.select(composed, "hydra.launcher.n_jobs")
    if jobs is not None and (not isinstance(jobs, int) or jobs == 0):
        raise UserError(f"hydra.launcher.n_jobs={jobs}: must be a whole number; -1 uses all cores")
    if config.sweep.join and "Search" not in composed.hydra.sweeper._target_:
        raise UserError("sweep.join=true: only a search can be joined (hydra/sweeper=optuna)")
    return config
