"""Settings of the data sources, of extra images, and of augmentation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from experiments.config.constraints import Between, CountOrFraction, Finite, ImageSize, Positive, Role, Text

DATA_SET_KEYS = ("data.name", "data.root", "data.file")  # runs that differ in one of these are of several data sets
FOLD_KEYS = ("data.folds", "data.fold")  # without both, validation_size and split choose the validation images


@dataclass(frozen=True)
class ExtraImages:
    """A picture, or a folder of pictures, that is added to the training set with a label."""

    path: Text
    label: Text


@dataclass(frozen=True)
class Decoding:
    """How picture files become images; see the keys of the same names."""

    image_size: int
    fit: str
    map_limit: int
    workers: int | None


@dataclass(frozen=True)
class DataSettings:
    """The keys that every data source has; `_target_` is the class that reads the images.

    Attributes:
        training_images: number of training images, with those for validation; None if it is not known before reading.
        fixed_image_size: the only image size of the source; None if it resizes its images.
        folders: keys whose value must be an existing folder if it is not null, and what it must contain.
        files: the same for files.
        of_files: every image is decoded from a picture file.
    """

    _target_: str
    name: Text
    seed: Annotated[int, Between(0, 2**32 - 1)]
    image_size: ImageSize
    fit: Annotated[Literal["squash", "crop", "pad"], Role.DECIDES]  # also of the pictures that are predicted later
    map_limit: Annotated[int, Between(0)]
    workers: Annotated[Annotated[int, Between(0, 1024)] | None, Role.HARDWARE]
    validation_size: CountOrFraction
    split: Literal["random", "stratified", "first"]
    folds: Annotated[int, Between(2, 1000)] | None
    fold: Annotated[Annotated[int, Between(0, 999)] | None, Role.REPEATS]
    mean: Annotated[tuple[Finite, Finite, Finite], Role.DECIDES]  # red, green, blue, of pixels scaled to 0..1
    std: Annotated[tuple[Positive, Positive, Positive], Role.DECIDES]
    extra: tuple[ExtraImages, ...]
    exclude: Text | None
    relabel: Text | None

    training_images: ClassVar[int | None] = None
    fixed_image_size: ClassVar[int | None] = None
    folders: ClassVar[Mapping[str, str]] = {}
    files: ClassVar[Mapping[str, str]] = {
        "exclude": "a line per picture, after a line with the name of the column: path or index",
        "relabel": "a line per picture, after a line with the names of the columns: path or index, and label",
    }
    of_files: ClassVar[bool] = False

    @property
    def origin(self) -> str:
        """Where the images come from, as recorded for a run."""
        return self._target_

    @property
    def title(self) -> str:
        """The name of the data set, as shown to users."""
        return self.name

    @property
    def folder(self) -> Path | None:
        """The folder that the names of the pictures are relative to; None if the images are not files."""
        return None

    @property
    def division(self) -> str:
        """How the validation images are taken from the training images, in words."""
        return f"{self.split} split" if self.folds is None else f"fold {self.fold} of {self.folds} folds"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return (3, self.image_size, self.image_size)

    @property
    def decoding(self) -> Decoding:
        """How picture files become images."""
        return Decoding(self.image_size, self.fit, self.map_limit, self.workers)


@dataclass(frozen=True)
class CifarSettings(DataSettings):
    name: Literal["cifar10", "cifar100"]
    root: Text
    urls: tuple[str, ...]
    sha256: str
    cache: Annotated[Text, Role.PLACE]

    training_images = 50_000
    fixed_image_size = 32

    @property
    def origin(self) -> str:
        return self.root


@dataclass(frozen=True)
class DigitsSettings(DataSettings):
    training_images = 1_500

    @property
    def origin(self) -> str:
        return "scikit-learn"


@dataclass(frozen=True)
class PictureSettings(DataSettings):
    """The keys of the sources that read picture files."""

    test_size: CountOrFraction  # used if the data has no test set of its own
    class_names: Text | None
    skip_broken: bool
    cache: Annotated[Text, Role.PLACE]

    files = {"class_names": "a name per class", **DataSettings.files}  # noqa: RUF012 - a ClassVar of the base class
    of_files = True


@dataclass(frozen=True)
class ImageFolderSettings(PictureSettings):
    root: Text
    layout: Literal["auto", "classes", "splits"]

    folders = {"root": "one folder of pictures per class"}  # noqa: RUF012 - a ClassVar of the base class

    @property
    def origin(self) -> str:
        return self.root

    @property
    def title(self) -> str:
        return folder_title(self.name, self.root)

    @property
    def folder(self) -> Path:
        return Path(os.path.expanduser(self.root))  # noqa: PTH111 - that of Path raises an error for an unknown user


@dataclass(frozen=True)
class CsvSettings(PictureSettings):
    """The keys of a table with a row per picture. Columns with the names of the defaults may be missing."""

    file: Text
    root: Text | None
    path_column: Text
    label_column: Text
    split_column: Text | None
    group_column: Text | None

    folders = {"root": "the pictures that the CSV file names"}  # noqa: RUF012 - a ClassVar of the base class
    files = {"file": "a line per picture, after a line with the names of the columns", **PictureSettings.files}  # noqa: RUF012

    @property
    def origin(self) -> str:
        return self.file

    @property
    def title(self) -> str:
        return table_title(self.name, self.file)

    @property
    def folder(self) -> Path:
        return Path(os.path.expanduser(self.root or os.path.dirname(self.file)))  # noqa: PTH111, PTH120 - as above


@dataclass(frozen=True)
class CustomSourceSettings(DataSettings):
    """Settings of a custom source: `parameters` are the other keys of its YAML file."""

    parameters: Mapping[str, Any] = field(hash=False)


def folder_title(name: str, root: str) -> str:
    """The name of a folder of pictures: `name` if the user has set one, else the last part of its path."""
    path = Path(root).expanduser()
    last = path.resolve().name if path.name in ("", "..") else path.name
    return last or name if name == "image_folder" else name


def table_title(name: str, file: str) -> str:
    """The name of a table of pictures: `name` if the user has set one, else that of its file without the extension."""
    return Path(file).stem or name if name == "csv" else name


Fraction = Annotated[float, Between(0, 1, above=True)]
Ratio = Annotated[float, Between(0.1, 10)]
FOLDER = "experiments.data.sources.image_folder.ImageFolder"
TABLE = "experiments.data.sources.csv_file.CsvFile"
SOURCES: dict[str, type[DataSettings]] = {  # any other target: its YAML file defines keys and types
    "experiments.data.sources.cifar.Cifar": CifarSettings,
    "experiments.data.sources.digits.Digits": DigitsSettings,
    FOLDER: ImageFolderSettings,
    TABLE: CsvSettings,
}


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of training images, drawn again for each image; a value of 0 (or none) switches a change off."""

    flip: Literal["none", "random", "alternating"]
    translate: Annotated[int, Between(0, 512)] | Annotated[float, Between(0, 0.9)]  # pixels, or a share of the picture
    rotate: Annotated[float, Between(0, 180)]  # degrees
    scale: Annotated[float, Between(0, 0.9)]
    crop: Annotated[float, Between(0, 0.95)]
    crop_scale: tuple[Fraction, Fraction] | None  # the least and the greatest
    crop_ratio: tuple[Ratio, Ratio]
    brightness: Annotated[float, Between(0, 1)]
    contrast: Annotated[float, Between(0, 1)]
    saturation: Annotated[float, Between(0, 1)]
    hue: Annotated[float, Between(0, 0.5)]
    cutout: Annotated[int, Between(0, 1024)] | Annotated[float, Between(0, 1)]  # as translate
    mixup: Annotated[float, Between(0, 100)]
    cutmix: Annotated[float, Between(0, 100)]

    @property
    def mixes(self) -> bool:
        """Whether an image may get pixels of another one of its batch."""
        return bool(self.mixup or self.cutmix)

    @property
    def active(self) -> dict[str, Any]:
        """The keys that are switched on, with their values."""
        off = ("none", 0, None)
        keys = {key: value for key, value in vars(self).items() if value not in off}
        return {key: value for key, value in keys.items() if self.crop_scale or key != "crop_ratio"}
