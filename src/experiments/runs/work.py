"""The work of an epoch, from the configuration alone: the network is built without memory for its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.config import Config
from experiments.data import Splits, load_splits
from experiments.models.build import build

BACKWARD = 3  # forward and backward together, as a multiple of forward


def multiply_adds(configs: Sequence[Config]) -> list[float]:
    """Multiply-adds of an epoch of training and validation; 1 for all if a network only runs with real numbers."""
    counts: dict[tuple[str, ...], int] = {}
    works = []
    for config in configs:
        splits = load_splits(config.data)
        network = (str(config.model), str(splits.image_shape), str(len(splits.classes)))
        if network not in counts:
            counts[network] = _of_an_image(config, splits)
        works.append(counts[network] * float(BACKWARD * len(splits.train) + len(splits.validation)))
    return works if all(works) else [1.0] * len(works)


def _of_an_image(config: Config, splits: Splits) -> int:
    try:
        with torch.device("meta"), torch.inference_mode():
            network = build(config, len(splits.classes)).network.eval()
            with FlopCounterMode(display=False) as counter:
                network(torch.zeros((1, *splits.image_shape)))
    except Exception:  # any network is possible
        return 0
    return int(counter.get_total_flops()) // 2


def steps(configs: Sequence[Config]) -> list[float]:
    """Optimizer steps of an epoch."""
    return [max(1.0, len(load_splits(one.data).train) / one.training.batch_size) for one in configs]
