"""Pictures that are dark, bright, blurred, nearly empty, or of an odd size or shape, found by cleanvision."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from PIL import Image

from experiments.config import UserError
from experiments.data import Images
from experiments.data.decoding import open_picture

# cleanvision's names of the problems, and ours; its own search for duplicates is not used.
PROBLEMS = {
    "dark": "dark",
    "light": "bright",
    "blurry": "blurred",
    "low_information": "nearly empty",
    "odd_size": "odd size",
    "odd_aspect_ratio": "odd shape",
}
COMMON = 0.25  # of the pictures; a property that more of them have belongs to the data set


@dataclass(frozen=True)
class Problem:
    """A picture with a problem; `score` is its quality, from 0 (worst) to 1."""

    index: int
    kind: str
    score: float


class _Pictures(Sequence[tuple[Image.Image]]):
    """The pictures as they are in their files, as the only entry of a tuple, as cleanvision reads a data set of torchvision."""

    def __init__(self, images: Images, folder: Path | None) -> None:
        self._images, self._folder = images, folder

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Image.Image]:  # type: ignore[override]
        if self._folder is not None and os.path.isfile(path := self._folder / self._images.name(index)):  # noqa: PTH113
            try:
                return (open_picture(path),)
            except UserError:  # it has changed since it was read
                pass
        return (Image.fromarray(self._images.image(index).transpose(1, 2, 0)),)


def find_problems(images: Images, folder: Path | None) -> tuple[list[Problem], dict[str, float]]:
    """(problems, the worst first of each kind; the kinds that are too common to be problems, with their fraction).

    Args:
        folder: the folder of the pictures; None if the images are not files.
    """
    from cleanvision import Imagelab  # an extra

    lab = Imagelab(torchvision_dataset=_Pictures(images, folder), verbose=False)
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):  # a progress bar belongs on a terminal
        lab.find_issues({kind: {} for kind in PROBLEMS}, n_jobs=1, verbose=False)
    found: list[Problem] = []
    common: dict[str, float] = {}
    for kind, name in PROBLEMS.items():
        rows = lab.issues[lab.issues[f"is_{kind}_issue"]].sort_values(f"{kind}_score", kind="stable")
        if len(rows) > COMMON * len(images):
            common[name] = len(rows) / len(images)
        else:
            found += [Problem(int(index), name, float(score)) for index, score in rows[f"{kind}_score"].items()]
    return found, common
