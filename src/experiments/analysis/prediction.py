"""The predictions of a finished run for pictures of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from experiments.analysis.pictures import AT_ONCE, SHOWN, Picture, save_figure
from experiments.analysis.rejection import UNSURE, Rejection
from experiments.config import DataSettings, UserError
from experiments.config.wording import percent
from experiments.data import Images
from experiments.runs.finished import FinishedRun


@dataclass(frozen=True)
class Prediction:
    """The prediction for one picture.

    Attributes:
        file, picture, pixels: see `Picture`; `picture` is its `original`.
        top: (class, probability) of all classes, the most probable first.
    """

    file: str
    picture: Image.Image
    pixels: np.ndarray
    top: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        return f"{self.file}: " + ", ".join(f"{name} {percent(probability)}" for name, probability in self.top[:3])

    def to_dict(self, count: int, rejection: Rejection | None = None) -> dict[str, Any]:
        """As plain values, with the `count` most probable classes; the class is `UNSURE` if its probability is rejected."""
        ranked = [{"class": name, "probability": probability} for name, probability in self.top[:count]]
        answer: dict[str, Any] = {"file": self.file, **ranked[0], "top": ranked}
        if rejection is None:
            return answer
        unsure = rejection.rejects(self.top[0][1])
        return answer | {"class": UNSURE if unsure else self.top[0][0], "unsure": unsure}


def predict(run: FinishedRun, sources: Sequence[str | IO[bytes] | Image.Image]) -> Iterator[Prediction | UserError]:
    """The prediction for each picture, in order; for one that cannot be read, the error, which names its file."""
    for start in range(0, len(sources), AT_ONCE):
        pictures = [_read(source, run.config.data) for source in sources[start : start + AT_ONCE]]
        pixels = [picture.pixels for picture in pictures if isinstance(picture, Picture)]
        probabilities = iter(run.probabilities(np.stack(pixels)) if pixels else [])
        for picture in pictures:
            if isinstance(picture, Picture):
                top = _ranked(run.classes, next(probabilities))
                yield Prediction(picture.file, picture.original, picture.pixels, top)
            else:
                yield picture


def predict_image(run: FinishedRun, images: Images, index: int) -> Prediction:
    """The prediction for one of the images of a data set, which are squares already."""
    (probabilities,) = run.probabilities(images[[index]])
    original = Image.fromarray(images.original(index, SHOWN))
    return Prediction(images.name(index), original, images.image(index), _ranked(run.classes, probabilities))


def _read(source: str | IO[bytes] | Image.Image, settings: DataSettings) -> Picture | UserError:
    try:
        return Picture.read(source, settings)
    except UserError as error:
        return error


def _ranked(classes: Sequence[str], probabilities: np.ndarray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    return tuple((classes[index], float(probabilities[index])) for index in order)


def save(prediction: Prediction, folder: Path, count: int) -> Path:
    """Write the picture with its `count` most probable classes into `folder`, and return the path.

    Only the same picture is replaced: others of the same name are numbered.

    Raises:
        UserError: nothing can be written there.
    """
    from experiments.analysis import figures  # late, because matplotlib takes half a second to import

    name = "picture" if prediction.file == "-" else prediction.file.lstrip("./")
    source = "-" if prediction.file == "-" else str(Path(prediction.file).resolve())
    figure = figures.prediction(prediction.picture, prediction.pixels, prediction.top[:count])
    return save_figure(figure, folder, f"{name[-150:]}.prediction", source, "--save", dpi=120)
