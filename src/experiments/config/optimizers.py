"""Settings of the optimizers and of the learning rate schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from experiments.config.constraints import Between


@dataclass(frozen=True)
class OptimizerSettings:
    name: str
    lr: Annotated[float, Between(0, 100, above=True)]
    weight_decay: Annotated[float, Between(0, 10)]
    weight_decay_exclude: Literal["none", "bias_and_norm"]
    backbone_lr: Annotated[float, Between(0, 1, above=True)]  # share of lr
    layer_decay: Annotated[float, Between(0, 1, above=True)]


@dataclass(frozen=True)
class AdamSettings(OptimizerSettings):
    beta1: Annotated[float, Between(0, 0.999999)]
    beta2: Annotated[float, Between(0, 0.999999)]
    epsilon: Annotated[float, Between(0, 1, above=True)]


@dataclass(frozen=True)
class SGDSettings(OptimizerSettings):
    momentum: Annotated[float, Between(0, 0.999999)]
    nesterov: bool


@dataclass(frozen=True)
class MuonSettings(OptimizerSettings):
    momentum: Annotated[float, Between(0, 0.999999)]
    nesterov: bool
    normalize_filters: bool
    adam_lr: Annotated[float, Between(0, 100, above=True)]  # for the parameters that Muon does not train
    adam_beta1: Annotated[float, Between(0, 0.999999)]
    adam_beta2: Annotated[float, Between(0, 0.999999)]
    adam_epsilon: Annotated[float, Between(0, 1, above=True)]


OPTIMIZERS: dict[str, type[OptimizerSettings]] = {
    "adam": AdamSettings,
    "adamw": AdamSettings,
    "sgd": SGDSettings,
    "muon": MuonSettings,
}


@dataclass(frozen=True)
class ScheduleSettings:
    """Fields of every schedule: the learning rate as a fraction of optimizer.lr."""

    along_cosine: ClassVar[bool] = False  # the learning rate follows half a cosine, not a straight line

    name: str
    start: Annotated[float, Between(0, 1)]  # fraction at the first step of a rise


@dataclass(frozen=True)
class ConstantSettings(ScheduleSettings):
    warmup: Annotated[float, Between(0, 100_000)]  # epochs of linear rise


@dataclass(frozen=True)
class DecaySettings(ConstantSettings):
    end: Annotated[float, Between(0, 1)]  # fraction at the last step


class CosineSettings(DecaySettings):
    along_cosine = True


@dataclass(frozen=True)
class PeakSettings(ScheduleSettings):
    """The learning rate rises to optimizer.lr and falls again."""

    peak: Annotated[float, Between(0, 1)]  # fraction of all steps after which optimizer.lr is reached
    end: Annotated[float, Between(0, 1)]  # fraction at the last step


class OneCycleSettings(PeakSettings):
    along_cosine = True


@dataclass(frozen=True)
class StepsSettings(ConstantSettings):
    every: Annotated[int, Between(1, 100_000)]  # epochs
    factor: Annotated[float, Between(0, 1, above=True)]


SCHEDULES: dict[str, type[ScheduleSettings]] = {
    "constant": ConstantSettings,
    "linear": DecaySettings,
    "cosine": CosineSettings,
    "step": StepsSettings,
    "triangular": PeakSettings,
    "onecycle": OneCycleSettings,
}
