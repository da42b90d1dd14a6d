"""What a configuration may hold: types, ranges, and which class a choice stands for.

YAML (`conf/`) owns every value; the classes here have no defaults. `parsing.parse` fills them. Imports nothing of ours and
nothing slow, so that a mistake shows before torch is loaded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.config.constraints import Between, Positive
from experiments.config.data import AugmentSettings, DataSettings
from experiments.config.metrics import Metric, Objective
from experiments.config.networks import ModelSettings
from experiments.config.optimizers import OptimizerSettings, ScheduleSettings


@dataclass(frozen=True)
class TrainingSettings:
    epochs: Annotated[int, Between(1, 100_000)]
    image_sizes: tuple[Annotated[int, Between(4, 1024)], ...]
    batch_size: Annotated[int, Between(1, 1_000_000)]
    class_weights: Literal["none", "balanced"]
    sampler: Literal["shuffle", "balanced"]
    label_smoothing: Annotated[float, Between(0, 0.99)]
    gradient_clip: Positive | None
    ema: Annotated[float, Between(0, 0.999999, above=True)] | None
    compile: bool


@dataclass(frozen=True)
class EarlyStoppingSettings:
    monitor: Metric
    patience: Annotated[int, Between(0)] | None
    min_delta: Annotated[float, Between(0)]
    restore_best: bool

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.monitor.endswith("accuracy") else -1


VIEWS = {"none": 1, "flip": 2, "flip_shift": 6}  # of one picture, over which its prediction is the mean


@dataclass(frozen=True)
class EvaluationSettings:
    tta: Literal["none", "flip", "flip_shift"]

    @property
    def note(self) -> str:
        """What has to stand beside every number that was measured so; nothing of plain predictions."""
        return f"mean over {VIEWS[self.tta]} views" if VIEWS[self.tta] > 1 else ""


@dataclass(frozen=True)
class TrackingSettings:
    uri: str | None
    artifacts: str
    experiment: str
    run_name: str | None


@dataclass(frozen=True)
class SweepSettings:
    """What concerns a multirun as a whole."""

    name: str | None
    join: bool
    objectives: tuple[Objective, ...]


@dataclass(frozen=True)
class Config:
    seed: Annotated[int, Between(0, 2**32 - 1)]
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Between(1, 1024)] | None
    precision: Literal["fp32", "tf32", "bf16"]
    resume: bool
    outputs: str
    evaluate_test: bool | None
    data: DataSettings
    augment: AugmentSettings
    model: ModelSettings
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    early_stopping: EarlyStoppingSettings
    tracking: TrackingSettings
    sweep: SweepSettings

    def to_dict(self) -> dict[str, Any]:
        """The plain form that `parsing.parse` reads."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        plain["model"] = {"_target_": self.model.target, **plain["model"]["parameters"]}
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
