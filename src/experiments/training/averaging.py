"""The exponential moving average of a model's weights."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from experiments.models import classifier


class ExponentialMovingAverage:
    """The exponential moving average of a model's weights, in a model of its own.

    So that short runs work, the factor rises with the steps (from 0) until it is `decay`: (1 + step) / (10 + step).
    Running statistics, such as those of BatchNorm, are averaged too; whole numbers are copied.
    """

    def __init__(self, model: classifier.Classifier, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self._decay = decay
        pairs = [
            (mine, theirs)
            for mine, theirs in zip(_tensors(self.model), _tensors(model), strict=True)
            if theirs.requires_grad or not isinstance(theirs, nn.Parameter)  # what is frozen never differs
        ]
        self._averaged, self._current = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(self._averaged, self._current, 1 - min(self._decay, (1 + step) / (10 + step)))
        for mine, theirs in self._copied:
            mine.copy_(theirs)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())
