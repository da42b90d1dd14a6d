"""A finished run and pictures -> what it says about each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from experiments.config import UserError
from experiments.data.pictures import fit, open_picture, pictures_in
from experiments.runs import Trained

PICTURES_AT_ONCE = 250  # read before the network is asked: memory stays flat however many there are


@dataclass(frozen=True)
class Prediction:
    """What the network says about one picture.

    Attributes:
        file: its path, or `-`.
        picture: the original, upright, in RGB.
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


def predict(trained: Trained, sources: Sequence[str | IO[bytes]]) -> Iterator[Prediction | UserError]:
    """A prediction for each picture, in their order; an error that names the file in place of one that cannot be read."""
    for start in range(0, len(sources), PICTURES_AT_ONCE):
        read = [_read(source, trained.image_size) for source in sources[start : start + PICTURES_AT_ONCE]]
        good = [item for item in read if not isinstance(item, UserError)]
        answers = iter(trained.probabilities(np.stack([pixels for _, _, pixels in good])) if good else [])
        for item in read:
            yield item if isinstance(item, UserError) else Prediction(*item, _ranked(trained.classes, next(answers)))


def _read(source: str | IO[bytes], image_size: int) -> tuple[str, Image.Image, np.ndarray] | UserError:
    try:
        picture = open_picture(Path(source) if isinstance(source, str) else source)
    except UserError as error:
        return error
    return (source if isinstance(source, str) else "-"), picture, fit(picture, image_size)


def _ranked(classes: Sequence[str], probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((classes[index], float(probabilities[index])) for index in order)


def find_pictures(paths: Sequence[str]) -> list[str]:
    """The files that `paths` mean: a file is itself, whatever its name; a folder is all the pictures in it.

    Raises:
        UserError: where a folder holds no pictures.
    """
    files: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            files.append(path)
        elif found := [str(file) for file in pictures_in(Path(path))]:
            files += found
        else:
            raise UserError(f"{path}: this folder holds no pictures")
    return files


def save(prediction: Prediction, folder: str, count: int) -> Path:
    """Write the annotated picture into `folder`; pictures of the same name in different folders do not overwrite each other."""
    from experiments import figures  # matplotlib takes half a second

    name = "picture" if prediction.file == "-" else prediction.file.strip("./\\")
    path = Path(folder) / (re.sub(r"[^\w.-]+", "_", name) + ".prediction.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.prediction(prediction.picture, prediction.pixels, prediction.top[:count]).savefig(path, dpi=120)
    return path
