"""The handwritten digits of scikit-learn as colour images: real data that needs no download."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.config import DigitsSettings
from experiments.data.images import Images
from experiments.data.pixels import Pixels, archive_names
from experiments.data.sources.source import Source

TRAINING = DigitsSettings.training_images


class Digits(Source[DigitsSettings, tuple[()]]):
    """1,500 training and 297 test images: grey digits in three equal channels, enlarged from 8x8 pixels.

    The digits are ordered by their writers, so those of the test set are by other writers.
    """

    def listing(self) -> tuple[()]:
        return ()

    def read(self, listing: tuple[()], seed: int) -> tuple[Images, Images]:
        images = _enlarged(self.settings.image_size)
        return images[:TRAINING], images[TRAINING:]


@functools.lru_cache(maxsize=2)
def _enlarged(image_size: int) -> Images:
    values, labels = _read()
    small = (values * (255 / 16)).round().astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(digit).resize((image_size, image_size), Image.Resampling.BICUBIC)) for digit in small
    ]
    pixels = np.repeat(np.stack(large)[:, None], 3, axis=1)
    return Images(Pixels(pixels, archive_names(TRAINING)), labels, tuple("0123456789"))


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Grey values 0 to 16, shape (1797, 8, 8), and labels, from scikit-learn's file: importing it would take a second."""
    found = importlib.util.find_spec("sklearn")
    assert found and found.origin, "scikit-learn is not installed"
    file = Path(found.origin).parent / "datasets/data/digits.csv.gz"
    if not file.exists():  # in a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        return load_digits().images, load_digits().target.astype(np.int64)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
