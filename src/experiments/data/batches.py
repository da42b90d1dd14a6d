"""Batches of images that live on the training device as uint8: a batch is one gather, with no copy from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from experiments.data.images import Images


class Batches:
    """Iterates over (pixels uint8 (batch, 3, H, W), labels int64 (batch,)) on `device`; the last batch may be smaller.

    With `shuffle` every pass draws a new order from torch's global random numbers (those of the CPU, so that the
    order is the same on every device); without it the order is that of `images`.
    """

    def __init__(self, images: Images, batch_size: int, device: torch.device, shuffle: bool = False) -> None:
        self.images = images
        self.batch_size = batch_size
        self.device = device
        self.shuffle = shuffle
        self._pixels = torch.from_numpy(images.pixels).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)

    def __len__(self) -> int:
        """Batches a pass."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.shuffle:
            yield from zip(self._pixels.split(self.batch_size), self.labels.split(self.batch_size))
            return
        order = torch.randperm(len(self.images)).to(self.device)
        for rows in order.split(self.batch_size):
            yield self._pixels[rows], self.labels[rows]
