"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from experiments.models.classifier import Classifier
from experiments.training import operators


class ExponentialMovingAverage:
    """The exponential moving average of a model's weights, in a copy of the model.

    The factor is (1 + step) / (10 + step), at most `decay`, so that it also works for short runs. Running statistics,
    such as those of BatchNorm, are averaged too; integers are copied.
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self._decay = decay
        pairs = [
            (average, current)
            for average, current in zip(_tensors(self.model), _tensors(model), strict=True)
            if current.requires_grad or not isinstance(current, nn.Parameter)  # frozen parameters never differ
        ]
        self._averaged, self._current = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after `step`, counted from 0 over all epochs."""
        operators.lerp(self._averaged, self._current, 1 - min(self._decay, (1 + step) / (10 + step)))
        for average, current in self._copied:
            average.copy_(current)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
