"""What a launcher calls for every point: here, in a process beside, or on another machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments import composition
from experiments.config import Config
from experiments.sweep.points import EPOCH_METRICS, Point, Status, labels


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
        overrides = at_home()
        return attempt(composition.parse(composed), overrides, name(overrides, self.varied), self.parent)


def at_home() -> list[str]:
    """The overrides of the job that this process is at, which goes to where the command was typed.

    Ray's workers start elsewhere, and relative paths have to mean the same there.
    """
    job = HydraConfig.get()
    if Path(job.runtime.cwd).is_dir():
        os.chdir(job.runtime.cwd)
    return list(job.overrides.task)


def attempt(
    config: Config,
    overrides: Sequence[str],
    called: str,
    parent: str | None,
    hopeless: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> Point:
    """Run a point; an error becomes its reason, so that it does not stop the others."""
    from experiments import experiment, terminal, tracking

    settings = {key: str(value) for key, value in tracking.flatten(config.to_dict())}
    membership = tracking.Membership(parent, called)
    more: dict[str, Any] = {"hopeless": hopeless} if hopeless else {}
    try:
        with terminal.silenced(parent is not None):
            result = experiment.run(config, overrides, membership, **more)
    except Exception as error:
        return Point("", called, "failed", settings, {}, {}, f"{type(error).__name__}: {error}", overrides)
    history = {key: [epoch[key] for epoch in result.history] for key in EPOCH_METRICS}
    reason = f"after epoch {len(result.history)}" if result.pruned else ""
    status: Status = "pruned" if result.pruned else "finished"
    return Point(result.run_id, result.name, status, settings, history, result.metrics, reason, overrides)


def name(overrides: Sequence[str], varied: Sequence[str]) -> str:
    """The values of the varied keys, in short."""
    short = labels(varied)
    values = dict(text.lstrip("+").partition("=")[::2] for text in overrides)
    return " ".join(f"{short[key]}={_shown(values[key])}" for key in varied if key in values) or " ".join(overrides)


def _shown(value: str) -> str:
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value
