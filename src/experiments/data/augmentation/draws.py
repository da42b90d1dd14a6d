"""The random numbers of an augmentation, from torch's generator of the CPU: a seed gives the same ones on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Draws for the images of a batch, one row per image.

    Attributes:
        count: of the images.
        device: of the images.
    """

    count: int
    device: torch.device

    def uniform(self, low: float, high: float) -> Tensor:
        """float32 (count,) from `low` to `high`."""
        return self.moved(torch.empty(self.count).uniform_(low, high))

    def moved(self, drawn: Tensor) -> Tensor:
        """What was drawn on the CPU, on the device of the images.

        CUDA copies unpinned memory at once, so `drawn` may be released although the CPU does not wait.
        """
        return drawn.to(self.device, non_blocking=self.device.type == "cuda")
