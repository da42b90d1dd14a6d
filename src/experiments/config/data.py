"""Settings of the data sources, of extra images, and of augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from experiments.config.constraints import Between, CountOrShare, Positive, Role


@dataclass(frozen=True)
class ExtraImages:
    """A picture, or a folder of pictures, that joins the training set under a label."""

    path: str
    label: str


@dataclass(frozen=True)
class DataSettings:
    """Fields that every source has; `name` chooses the source."""

    name: str
    image_size: Annotated[int, Between(4, 1024)]  # pixels a side
    validation_size: CountOrShare
    split: Literal["random", "stratified", "first"]
    mean: Annotated[tuple[float, float, float], Role.DECIDES]  # red, green, blue, of pixels scaled to 0..1
    std: Annotated[tuple[Positive, Positive, Positive], Role.DECIDES]
    extra: tuple[ExtraImages, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3, self.image_size, self.image_size)


@dataclass(frozen=True)
class CifarSettings(DataSettings):
    root: str
    urls: tuple[str, ...]
    sha256: str
    cache: Annotated[str, Role.PLACE]


@dataclass(frozen=True)
class DigitsSettings(DataSettings):
    pass


@dataclass(frozen=True)
class ImageFolderSettings(DataSettings):
    root: str
    test_size: CountOrShare  # where there is no test/ folder
    cache: Annotated[str, Role.PLACE]


SOURCES: dict[str, type[DataSettings]] = {
    "cifar10": CifarSettings,
    "cifar100": CifarSettings,
    "digits": DigitsSettings,
    "image_folder": ImageFolderSettings,
}
TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "digits": 1_500}  # before validation is taken out


@dataclass(frozen=True)
class AugmentSettings:
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
