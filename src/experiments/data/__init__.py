"""Where the images come from: a source gives training and test images, and the training images are split.

splits = load_splits(config.data, seed=888)     # numpy only; torch is not needed to find out that data is missing
"""

from experiments.data.images import Images, Splits
from experiments.data.loading import load_splits

__all__ = ["Images", "Splits", "load_splits"]
