"""What a configuration may hold: types, ranges, and which class a choice stands for.

YAML (`conf/`) owns every value; the classes here have no defaults. `parsing.parse` fills them. Imports nothing of ours and
nothing slow, so that a mistake shows before torch is loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

Metric = Literal["train/loss", "train/accuracy", "val/loss", "val/accuracy"]  # what early stopping can watch
Objective = Literal["val/accuracy", "val/loss", "parameters", "seconds"]  # what a multirun can rank by


class UserError(ValueError):
    """A mistake of the user's: shown as one message without a traceback, exit code 2."""


@dataclass(frozen=True)
class Between:
    """Both ends are allowed; with `above`, the lower end is not."""

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"{'above' if self.above else 'of at least'} {self.low:,}"
        return f"above {self.low:,} and at most {self.high:,}" if self.above else f"from {self.low:,} to {self.high:,}"


Positive = Annotated[float, Between(0, above=True)]
CountOrShare = Annotated[int, Between(1)] | Annotated[float, Between(0, 0.9, above=True)]


@dataclass(frozen=True)
class Extra:
    """A picture, or a folder of pictures, that joins the training set under a label."""

    path: str
    label: str


@dataclass(frozen=True)
class Data:
    """Fields that every source has; `name` chooses the source."""

    name: str
    image_size: Annotated[int, Between(4, 1024)]  # pixels a side
    validation_size: CountOrShare
    split: Literal["random", "stratified", "first"]
    mean: tuple[float, float, float]  # red, green, blue, of pixels scaled to 0..1
    std: tuple[Positive, Positive, Positive]
    extra: tuple[Extra, ...]


@dataclass(frozen=True)
class Cifar(Data):
    root: str
    urls: tuple[str, ...]
    sha256: str
    cache: str


@dataclass(frozen=True)
class Digits(Data):
    pass


@dataclass(frozen=True)
class ImageFolder(Data):
    root: str
    test_size: CountOrShare  # where there is no test/ folder
    cache: str


SOURCES: dict[str, type[Data]] = {"cifar10": Cifar, "cifar100": Cifar, "digits": Digits, "image_folder": ImageFolder}
TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "digits": 1_500}  # before validation is taken out


@dataclass(frozen=True)
class Augment:
    """Random changes of training pictures, drawn for each picture anew; a value of 0 (or none) leaves one out."""

    flip: Literal["none", "random", "alternating"]
    translate: Annotated[int, Between(0, 512)]  # pixels
    rotate: Annotated[float, Between(0, 180)]  # degrees
    scale: Annotated[float, Between(0, 0.9)]
    crop: Annotated[float, Between(0, 0.95)]
    brightness: Annotated[float, Between(0, 1)]
    contrast: Annotated[float, Between(0, 1)]
    saturation: Annotated[float, Between(0, 1)]
    hue: Annotated[float, Between(0, 0.5)]
    cutout: Annotated[int, Between(0, 1024)]  # pixels
    mixup: Annotated[float, Between(0, 100)]
    cutmix: Annotated[float, Between(0, 100)]

    @property
    def changes(self) -> bool:
        """Whether anything is switched on."""
        return any(value not in ("none", 0) for value in vars(self).values())


@dataclass(frozen=True)
class CNN:
    """Parameters of `experiments.models.cnn.CNN`."""

    filters: Annotated[int, Between(1, 4096)]
    kernel_size: Annotated[int, Between(1, 1024)]
    dense_width: Annotated[int, Between(1, 65_536)]
    blocks: Annotated[int, Between(1, 16)]
    dropout: Annotated[float, Between(0, 0.99)]


def feature_size(image_size: int, kernel_size: int, blocks: int) -> int:
    """Pixels a side after `blocks` times a convolution without padding and a 2x2 pooling; below 1 it does not fit."""
    for _ in range(blocks):
        image_size = (image_size - kernel_size + 1) // 2
    return image_size


@dataclass(frozen=True)
class Model:
    """`target` is the class that is built; `parameters` are its keyword arguments."""

    target: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class FastNet:
    """Parameters of `experiments.models.fastnet.FastNet`."""

    widths: tuple[Annotated[int, Between(1, 4096)], ...]
    convolutions: Annotated[int, Between(1, 16)]
    residual: bool
    patch: Annotated[int, Between(2, 8)]
    stride: Annotated[int, Between(1, 8)]


MODELS: dict[str, type] = {  # any other target: its YAML file gives keys and types
    "experiments.models.cnn.CNN": CNN,
    "experiments.models.fastnet.FastNet": FastNet,
}


@dataclass(frozen=True)
class Optimizer:
    name: str
    lr: Annotated[float, Between(0, 100, above=True)]
    weight_decay: Annotated[float, Between(0, 10)]
    weight_decay_on: Literal["all", "weights"]


@dataclass(frozen=True)
class Adam(Optimizer):
    beta1: Annotated[float, Between(0, 0.999999)]
    beta2: Annotated[float, Between(0, 0.999999)]
    epsilon: Annotated[float, Between(0, 1, above=True)]


@dataclass(frozen=True)
class SGD(Optimizer):
    momentum: Annotated[float, Between(0, 0.999999)]
    nesterov: bool


@dataclass(frozen=True)
class Muon(Optimizer):
    momentum: Annotated[float, Between(0, 0.999999)]
    nesterov: bool
    unit_filters: bool
    rest_lr: Annotated[float, Between(0, 100, above=True)]  # of what Muon does not train


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": Adam, "sgd": SGD, "muon": Muon}


@dataclass(frozen=True)
class Schedule:
    """Fields of every schedule: the learning rate as a share of optimizer.lr."""

    name: str
    start: Annotated[float, Between(0, 1)]  # share at the first step, where it rises


@dataclass(frozen=True)
class Constant(Schedule):
    warmup: Annotated[float, Between(0, 100_000)]  # epochs of linear rise


@dataclass(frozen=True)
class Decay(Constant):
    end: Annotated[float, Between(0, 1)]  # share at the last step


@dataclass(frozen=True)
class Peak(Schedule):
    """Rises to the full rate and falls again."""

    peak: Annotated[float, Between(0, 1)]  # where in the run the full rate is reached, as a share of all steps
    end: Annotated[float, Between(0, 1)]  # share at the last step


@dataclass(frozen=True)
class Steps(Constant):
    every: Annotated[int, Between(1, 100_000)]  # epochs
    factor: Annotated[float, Between(0, 1, above=True)]


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "linear": Decay,
    "cosine": Decay,
    "step": Steps,
    "triangular": Peak,
    "onecycle": Peak,
}


@dataclass(frozen=True)
class Training:
    epochs: Annotated[int, Between(1, 100_000)]
    sides: tuple[Annotated[int, Between(4, 1024)], ...]
    batch_size: Annotated[int, Between(1, 1_000_000)]
    class_weights: Literal["none", "balanced"]
    sampler: Literal["shuffle", "balanced"]
    label_smoothing: Annotated[float, Between(0, 0.99)]
    gradient_clip: Positive | None
    ema: Annotated[float, Between(0, 0.999999, above=True)] | None
    compile: bool


@dataclass(frozen=True)
class EarlyStopping:
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
class Evaluation:
    tta: Literal["none", "flip", "flip_shift"]

    @property
    def note(self) -> str:
        """What has to stand beside every number that was measured so; nothing of plain predictions."""
        return f"mean over {VIEWS[self.tta]} views" if VIEWS[self.tta] > 1 else ""


@dataclass(frozen=True)
class Tracking:
    uri: str | None
    artifacts: str
    experiment: str
    run_name: str | None


@dataclass(frozen=True)
class Sweep:
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
    data: Data
    augment: Augment
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    training: Training
    evaluation: Evaluation
    early_stopping: EarlyStopping
    tracking: Tracking
    sweep: Sweep

    def to_dict(self) -> dict[str, Any]:
        """The plain form that `parsing.parse` reads."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        plain["model"] = {"_target_": self.model.target, **plain["model"]["parameters"]}
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
