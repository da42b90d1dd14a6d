"""Batches of uint8 images: gathered from where they lie on a CPU, and on any other device from a copy of all on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from experiments.data.images import Images


class Batch(NamedTuple):
    """Pictures with their labels, and which of the split they are."""

    pixels: Tensor  # uint8 (batch, 3, H, W)
    labels: Tensor  # int64 (batch,)
    rows: Tensor  # int64 (batch,): their places among the images, from 0


class Batches:
    """Iterates over every `Batch` of the images on `device`; the last may be smaller.

    The order is that of `images` (`as_is`), a new one every pass (`shuffle`), or a new draw every pass, with
    repetition, in which every class comes alike often (`balanced`). Draws come from torch's global random numbers of
    the CPU, so that they are the same on every device.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        device: torch.device,
        order: Literal["as_is", "shuffle", "balanced"] = "as_is",
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.device = device
        self.order = order
        self.labels = torch.tensor(images.labels, device=device)
        self._pixels = None if device.type == "cpu" else torch.from_numpy(images.pixels).to(device)

    def __len__(self) -> int:
        """Batches a pass."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._rows().to(self.device).split(self.batch_size):
            pixels = self._gathered(rows) if self._pixels is None else self._pixels[rows]
            yield Batch(pixels, self.labels[rows], rows)

    def _gathered(self, rows: Tensor) -> Tensor:
        """A batch straight from the source, which may be a mapped file: beside it there is never a copy of a split."""
        return torch.from_numpy(self.images.source.take(self.images.rows[rows.numpy()], axis=0))

    def _rows(self) -> Tensor:
        if self.order == "as_is":
            return torch.arange(len(self.images))
        if self.order == "shuffle":
            return torch.randperm(len(self.images))
        chances = torch.from_numpy(self.images.balancing_weights[self.images.labels])
        return torch.multinomial(chances, len(self.images), replacement=True)
