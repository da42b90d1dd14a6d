"""Look before training: what a data set holds, how its classes are balanced, and which pictures it holds twice.

splits = load(config.data, config.seed)
duplicates = find_duplicates(splits)    # within training, and across the splits; numpy only
"""

from experiments.exploration.duplicates import SIMILARITY, Duplicates, Pair, Place, describe, find_duplicates
from experiments.exploration.statistics import Pixels, balance, measure, ratio

__all__ = [
    "SIMILARITY",
    "Duplicates",
    "Pair",
    "Pixels",
    "Place",
    "balance",
    "describe",
    "find_duplicates",
    "measure",
    "ratio",
]
