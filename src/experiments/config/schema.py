"""The whole configuration: all keys, with their types, ranges and roles, and when they act.

All default values are in YAML (`conf/`), none in the classes; `validation.parse` creates them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.config.constraints import Acts, Between, ImageSize, Length, OneOf, Positive, Role, Text
from experiments.config.data import SOURCES, AugmentSettings, DataSettings
from experiments.config.durations import Duration
from experiments.config.metrics import MONITORS, OBJECTIVES, higher_is_better
from experiments.config.networks import MODELS, ModelSettings
from experiments.config.optimizers import OPTIMIZERS, SCHEDULES, OptimizerSettings, ScheduleSettings
from experiments.config.views import VIEWS


@dataclass(frozen=True)
class TrainingSettings:
    epochs: Annotated[int, Between(1, 100_000), Acts.BY_RATE]
    image_sizes: Annotated[tuple[ImageSize, ...], Acts.PER_EPOCH]
    batch_size: Annotated[int, Between(1, 1_000_000)]
    class_weights: Literal["none", "balanced"]
    sampler: Literal["shuffle", "balanced"]
    label_smoothing: Annotated[float, Between(0, 0.99)]
    gradient_clip: Positive | None
    ema: Annotated[float, Between(0, 0.999999, above=True)] | None
    compile: bool
    freeze: Text | tuple[Text, ...]
    unfreeze_epoch: Annotated[Annotated[int, Between(2)] | None, Acts.FROM_EPOCH]
    accumulate: Annotated[int, Between(1, 1_000_000)]
    batch_norm: Literal["synchronised", "local"]
    checkpoint_minutes: Annotated[Positive | None, Role.AFTER]
    budget: Annotated[Duration | None, Role.AFTER]

    @property
    def batches(self) -> str:
        """The batches, in words."""
        return f"batches of {self.batch_size}{f' in {self.accumulate} parts' if self.accumulate > 1 else ''}"

    @property
    def frozen(self) -> str:
        """What is frozen, and until when, in words; empty if nothing is."""
        names = self.freeze if isinstance(self.freeze, str) else ", ".join(self.freeze)
        until = f" before epoch {self.unfreeze_epoch}" if self.unfreeze_epoch else ""
        return "" if names == "none" else names + until


@dataclass(frozen=True)
class EarlyStoppingSettings:
    monitor: Annotated[str, OneOf(MONITORS)]
    patience: Annotated[int, Between(0)] | None
    min_delta: Annotated[float, Between(0)]
    restore_best: bool

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is better."""
        return 1 if higher_is_better(self.monitor) else -1


@dataclass(frozen=True)
class EvaluationSettings:
    tta: Annotated[str, OneOf(tuple(VIEWS)), Acts.ON_VALIDATION]
    calibrate: Annotated[bool, Acts.AFTERWARDS]

    @property
    def note(self) -> str:
        """How predictions were made, shown beside every number that depends on it; empty without augmentation."""
        return f"mean over {len(VIEWS[self.tta])} views" if len(VIEWS[self.tta]) > 1 else ""


@dataclass(frozen=True)
class TrackingSettings:
    uri: Annotated[str | None, Role.PLACE]
    artifacts: Annotated[Text, Role.PLACE]
    experiment: Annotated[Annotated[str, Length(250)] | None, Role.LABEL]
    run_name: Annotated[str | None, Role.LABEL]


@dataclass(frozen=True)
class SweepSettings:
    """Settings of a multirun as a whole."""

    name: Annotated[str | None, Role.LABEL]
    join: Annotated[bool, Role.AFTER]
    budget: Annotated[Duration | None, Role.AFTER]
    objectives: Annotated[tuple[Annotated[str, OneOf(OBJECTIVES)], ...], Role.AFTER]
    checkpoints_gb: Annotated[float, Between(0, 1_000_000), Role.AFTER]


FAMILIES: dict[type, Mapping[str, type]] = {  # the class of a section depends on its `name` or `_target_`
    DataSettings: SOURCES,
    ModelSettings: MODELS,
    OptimizerSettings: OPTIMIZERS,
    ScheduleSettings: SCHEDULES,
}


@dataclass(frozen=True)
class Config:
    seed: Annotated[int, Between(0, 2**32 - 1), Role.REPEATS]
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Role.HARDWARE]
    threads: Annotated[Annotated[int, Between(1, 1024)] | None, Role.HARDWARE]
    precision: Literal["fp32", "tf32", "bf16"]
    deterministic: bool
    resume: Annotated[bool, Role.AFTER]
    outputs: Annotated[Text, Role.PLACE]
    evaluate_test: Annotated[bool | None, Role.AFTER]
    data: Annotated[DataSettings, Role.CONTENT]
    augment: AugmentSettings
    model: ModelSettings
    optimizer: OptimizerSettings
    schedule: Annotated[ScheduleSettings, Acts.BY_RATE]
    training: TrainingSettings
    evaluation: EvaluationSettings
    early_stopping: Annotated[EarlyStoppingSettings, Acts.ON_STOPPING]
    tracking: TrackingSettings
    sweep: SweepSettings

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment."""
        return self.tracking.experiment or self.data.title

    def to_dict(self) -> dict[str, Any]:
        """The plain form that `validation.parse` reads."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        plain["model"] = {"_target_": self.model.target, "weights": self.model.weights, **self.model.parameters}
        plain["data"] |= plain["data"].pop("parameters", {})  # of a custom source
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
