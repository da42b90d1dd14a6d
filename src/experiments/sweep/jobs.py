"""What a launcher calls for every point: here, in a process beside, or on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.comparison.points import HISTORY, Point, Status
from experiments.config import Config
from experiments.config.command_line import Command
from experiments.config.composition import parse_composed
from experiments.config.keys import flatten, point_name
from experiments.runs.provenance import ParentRun


@dataclass(frozen=True)
class RunPoint:
    """Trains one point and tells what came of it; it travels to the process that does so.

    Attributes:
        parent: MLflow's run of the multirun; None where nothing is tracked.
        varied: the keys whose values make the names of the points.
    """

    parent: str | None
    varied: tuple[str, ...]

    def __call__(self, composed: DictConfig) -> Point:
        command = enter_job()
        name = point_name(command.overrides, self.varied)
        return run_trial(parse_composed(composed), command, ParentRun(self.parent, name))


def enter_job() -> Command:
    """The command of the job that this process works on; changes to the folder where the multirun was typed.

    Ray's workers start elsewhere, and relative paths have to mean the same there.
    """
    job = HydraConfig.get()
    if Path(job.runtime.cwd).is_dir():
        os.chdir(job.runtime.cwd)
    return Command.from_hydra(job, job.overrides.task)


def run_trial(
    config: Config,
    command: Command,
    parent: ParentRun,
    should_prune: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> Point:
    """Run a point; an error becomes its reason, so that it does not stop the others."""
    from experiments.experiment import run
    from experiments.reports.terminal import silenced

    settings = {key: str(value) for key, value in flatten(config.to_dict())}
    options: dict[str, Any] = {"should_prune": should_prune} if should_prune else {}
    try:
        with silenced(parent.run_id is not None):
            result = run(config, command, parent, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Point("", parent.point_name, "failed", settings, {}, {}, reason, command.overrides)
    history = {key: [epoch[key] for epoch in result.history] for key in HISTORY}
    reason = f"after epoch {len(result.history)}" if result.pruned else ""
    status: Status = "pruned" if result.pruned else "finished"
    return Point(result.run_id, result.name, status, settings, history, result.metrics, reason, command.overrides)
