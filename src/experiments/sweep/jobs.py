"""The jobs of a launcher: they run in this process, in another one, or on another machine.

Imports nothing slow (torch, MLflow), so that mistakes in a multirun are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.comparison.points import HISTORY, Point, Status
from experiments.config import Config
from experiments.config.command_line import Command, mask_passwords
from experiments.config.composition import parse_composed
from experiments.config.keys import flatten, point_name

if TYPE_CHECKING:
    from experiments.runs.provenance import ParentRun

TERMINATED = "its process terminated unexpectedly: killed, or out of memory"


@dataclass(frozen=True)
class GridJob:
    """Trains one run of a grid and returns it as a point; sent to the process that trains.

    Attributes:
        parent: id of the multirun's run in MLflow; None without MLflow.
        varied: the keys that the names of the runs consist of.
    """

    parent: str | None
    varied: tuple[str, ...]

    def __call__(self, composed: DictConfig) -> Point:
        from experiments.runs.provenance import ParentRun  # imports torch

        command = enter_job()
        name = point_name(command.overrides, self.varied)
        return run_point(parse_composed(composed), command, ParentRun(self.parent, name))


def enter_job() -> Command:
    """Change to the folder where the multirun was started, and return the command of the current job.

    Ray's workers start in another folder, and relative paths must mean the same there.
    """
    job = HydraConfig.get()
    if Path(job.runtime.cwd).is_dir():
        os.chdir(job.runtime.cwd)
    return Command.from_hydra(job, job.overrides.task)


def run_point(
    config: Config,
    command: Command,
    parent: ParentRun,
    should_prune: Callable[[int, Mapping[str, float]], bool] = lambda epoch, metrics: False,
) -> Point:
    """Train one point. An error is recorded as the reason of failure, so that the other points continue."""
    from experiments.experiment import run
    from experiments.reports.terminal import silenced

    settings = {key: str(mask_passwords(value)) for key, value in flatten(config.to_dict())}
    try:
        with silenced(parent.run_id is not None):
            result = run(config, command, parent, should_prune)
    except Exception as error:
        reason = mask_passwords(f"{type(error).__name__}: {error}")
        return Point("", parent.point_name, "failed", settings, {}, {}, reason, command.overrides)
    history = {key: [epoch[key] for epoch in result.history] for key in HISTORY}
    reason = f"after epoch {len(result.history)}" if result.pruned else ""
    status: Status = "pruned" if result.pruned else "finished"
    return Point(result.run_id, result.name, status, settings, history, result.metrics, reason, command.overrides)


def failed_point(overrides: Sequence[str], varied: Sequence[str], reason: str) -> Point:
    """A point that failed before it had a run."""
    return Point("", point_name(overrides, varied), "failed", {}, {}, {}, reason, overrides)
