"""Images from a source, split into training, validation and test images, and batches of them.

splits = load_splits(config.data)     # NumPy only; torch is not needed to find out that data is missing
"""

from experiments.data.images import Images, Splits
from experiments.data.loading import list_files, load_all, load_splits
from experiments.data.sources import Source

__all__ = ["Images", "Source", "Splits", "list_files", "load_all", "load_splits"]
