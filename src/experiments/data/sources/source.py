"""The interface of every data source. A custom source is a class in a Python file, and a YAML file that names the class.

shapes.py, in the working directory:

    class Shapes(experiments.data.Source):
        def listing(self):
            return ()

        def read(self, listing, seed):
            size, count = self.settings.image_size, self.settings.parameters["count"]
            ...
            return Images(pixels, labels, ("circle", "square")), Images(..., names=file_names)  # names may be left out

conf/data/shapes.yaml, or data/shapes.yaml in the folder of --config-dir:

    defaults: [_base]
    _target_: shapes.Shapes
    name: shapes
    validation_size: 0.2
    count: 1000
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar, Generic, TypeVar

from experiments.config import DataSettings
from experiments.data.images import Images

Settings = TypeVar("Settings", bound=DataSettings)
Listing = TypeVar("Listing", bound=Hashable)


class Source(ABC, Generic[Settings, Listing]):
    """Reads the images of a data set.

    Attributes:
        settings: the keys of its YAML file; those of a custom source are in `settings.parameters`.
        may_hold_copies: whether the same image may be there more than once. Copies of test images are then removed from
            training and validation, and copies of validation images from training.
        skipped: the broken pictures that `read` has left out, each with its name and what is wrong with it.
    """

    may_hold_copies: ClassVar[bool] = False
    skipped: tuple[str, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def listing(self) -> Listing:
        """What there is to read, listed without reading it. The images are read again if it has changed.

        Raises:
            UserError: if data is missing.
        """

    @abstractmethod
    def read(self, listing: Listing, seed: int) -> tuple[Images, ...]:
        """(training, test) images, `settings.image_size` pixels per side, from the first of which the validation images are
        taken later; or (training, validation, test) images. `Images.groups` of the first are kept together.

        Raises:
            UserError: if data is broken, or too small to be split.
        """

    def files(self, listing: Listing) -> tuple[str, ...]:
        """The paths of the picture files of a listing; none if the images are kept in another way."""
        return ()

    def read_all(self) -> Images | None:
        """Every image without a split, for an evaluation; None if they are those of `read`.

        Raises:
            UserError: if data is missing or broken.
        """
        return None
