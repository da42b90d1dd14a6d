"""scikit-learn's handwritten digits as colour pictures: real data that needs no download."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.data.images import Images

TRAINING = 1_500  # the data come in the order of their writers, so the last 297 are by others


@functools.lru_cache(maxsize=2)
def read(image_size: int) -> tuple[Images, Images]:
    """(training, test): 1,500 and 297 grey digits in three equal channels, enlarged from 8x8."""
    values, labels = _read()
    small = (values * (255 / 16)).round().astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(digit).resize((image_size, image_size), Image.Resampling.BICUBIC)) for digit in small
    ]
    pixels = np.repeat(np.stack(large)[:, None], 3, axis=1)
    images = Images(pixels, labels, tuple("0123456789"))
    return images[:TRAINING], images[TRAINING:]


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Grey values 0 to 16, shape (1797, 8, 8), and labels: from scikit-learn's file, without the second of its import."""
    found = importlib.util.find_spec("sklearn")
    assert found and found.origin, "scikit-learn is not installed"
    file = Path(found.origin).parent / "datasets/data/digits.csv.gz"
    if not file.exists():  # in a version that keeps it elsewhere
        from sklearn.datasets import load_digits

        return load_digits().images, load_digits().target.astype(np.int64)
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
