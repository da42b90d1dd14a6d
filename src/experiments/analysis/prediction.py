"""A finished run and pictures -> what it says about each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from experiments.config import UserError
from experiments.data.decoding import open_picture, pictures_in, resize, to_rgb
from experiments.runs.finished import FinishedRun

PICTURES_AT_ONCE = 250  # read before the network is asked
SHOWN = 512  # pixels a side of an original that are kept, so that memory stays flat however many there are


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture.

    Attributes:
        file: its path, or `-`.
        picture: the original, upright, in RGB, at no more than `SHOWN` pixels a side.
        pixels: what the network sees, uint8 (3, H, W).
        top: (class, probability) of all classes, the most probable first.
    """

    file: str
    picture: Image.Image
    pixels: np.ndarray
    top: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        return f"{self.file}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in self.top[:3])

    def to_dict(self, count: int) -> dict[str, object]:
        """The plain form, with the `count` most probable classes."""
        ranked = [{"class": name, "probability": probability} for name, probability in self.top[:count]]
        return {"file": self.file, **ranked[0], "top": ranked}


def predict(trained: FinishedRun, sources: Sequence[str | IO[bytes] | Image.Image]) -> Iterator[Prediction | UserError]:
    """A prediction for each picture, in their order; an error that names the file in place of one that cannot be read."""
    for start in range(0, len(sources), PICTURES_AT_ONCE):
        read = [_read(source, trained.image_size) for source in sources[start : start + PICTURES_AT_ONCE]]
        good = [item for item in read if not isinstance(item, UserError)]
        answers = iter(trained.probabilities(np.stack([pixels for _, _, pixels in good])) if good else [])
        for item in read:
            yield item if isinstance(item, UserError) else Prediction(*item, _ranked(trained.classes, next(answers)))


def _read(source: str | IO[bytes] | Image.Image, image_size: int) -> tuple[str, Image.Image, np.ndarray] | UserError:
    try:
        if isinstance(source, Image.Image):
            picture = to_rgb(source).copy()
        else:
            picture = open_picture(Path(source) if isinstance(source, str) else source)
    except UserError as error:
        return error
    pixels = resize(picture, image_size)
    picture.thumbnail((SHOWN, SHOWN))
    return (source if isinstance(source, str) else "-"), picture, pixels


def _ranked(classes: Sequence[str], probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((classes[index], float(probabilities[index])) for index in order)


def find_pictures(paths: Sequence[str]) -> tuple[list[str], list[UserError]]:
    """(files, folders without pictures): a file is itself, whatever its name; a folder is all the pictures in it."""
    files: list[str] = []
    empty: list[UserError] = []
    for path in paths:
        if not Path(path).is_dir():
            files.append(path)
        elif found := [str(file) for file in pictures_in(Path(path))]:
            files += found
        else:
            empty.append(UserError(f"{path}: this folder holds no pictures"))
    return files, empty


def save(prediction: Prediction, folder: Path, count: int, taken: set[Path]) -> Path:
    """Write the annotated picture into `folder`, under a name that is not `taken` yet, and is from now on.

    Raises:
        UserError: where nothing can be written there.
    """
    from experiments.analysis import figures  # matplotlib takes half a second

    stem = "picture" if prediction.file == "-" else re.sub(r"[^\w.-]+", "_", prediction.file.lstrip("./"))[-150:]
    names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
    path = next(path for name in names if (path := folder / f"{name}.prediction.png") not in taken)
    taken.add(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures.prediction(prediction.picture, prediction.pixels, prediction.top[:count]).savefig(path, dpi=120)
    except OSError as error:
        raise UserError(f"--save {folder}: nothing can be written there ({error.strerror})") from None
    return path
