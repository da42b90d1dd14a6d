"""The random numbers of an augmentation, from torch's generator of the CPU: a seed gives the same ones on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Draws for the images of a batch, one row per image.

    They are drawn for the whole batch, also if only some of its images are here: the others are in other processes.

    Attributes:
        count: of the images of the batch.
        device: of the images.
        rows: of the batch that are here, int64; None: all.
    """

    count: int
    device: torch.device
    rows: Tensor | None = None

    def uniform(self, low: float, high: float) -> Tensor:
        """float32 (count,) from `low` to `high`."""
        return self.moved(torch.empty(self.count).uniform_(low, high))

    def moved(self, drawn: Tensor) -> Tensor:
        """What was drawn for the batch (count, ...) on the CPU: of the images that are here, and on their device.

        CUDA copies unpinned memory at once, so `drawn` may be released although the CPU does not wait.
        """
        here = drawn if self.rows is None else drawn[self.rows]
        return here.to(self.device, non_blocking=self.device.type == "cuda")
