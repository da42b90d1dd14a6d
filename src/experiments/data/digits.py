"""scikit-learn's handwritten digits as colour pictures: real data that needs no download."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from experiments.data.images import Images

TRAINING = 1_500  # the data come in the order of their writers, so the last 297 are by others


@functools.lru_cache(maxsize=2)
def load(image_size: int) -> tuple[Images, Images]:
    """(training, test): 1,500 and 297 grey digits in three equal channels, enlarged from 8x8."""
    from sklearn.datasets import load_digits  # 1 s to import

    bunch = load_digits()
    small = (bunch.images * (255 / 16)).round().astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(digit).resize((image_size, image_size), Image.Resampling.BICUBIC)) for digit in small
    ]
    pixels = np.repeat(np.stack(large)[:, None], 3, axis=1)
    images = Images(pixels, bunch.target.astype(np.int64), tuple(str(name) for name in bunch.target_names))
    return images[:TRAINING], images[TRAINING:]
