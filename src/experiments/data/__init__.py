"""Where the pictures come from: a source gives training and test images, the training images are split.

splits = load(config.data, seed=888)     # numpy only; torch is not needed to find out that data is missing
"""

from experiments.data.images import Images, Splits
from experiments.data.loading import load

__all__ = ["Images", "Splits", "load"]
