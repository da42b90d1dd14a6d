"""Batches of uint8 images: gathered from where they lie on a CPU, and on any other device from a copy of all on it.

What is too large for that is streamed: a thread reads ahead from the file, while the batches before are trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from experiments.data.images import Batch, Images
from experiments.data.prefetch import prefetch

PREFETCH = 3  # pieces, each one batch or some: enough to hide a slow read now and then


class Batches:
    """Iterates over every `Batch` of the images on `device`; the last may be smaller.

    The order is that of `images` (`as_is`), a new one every pass (`shuffle`), or a new draw every pass, with
    repetition, in which every class comes alike often (`balanced`). Draws come from torch's global random numbers of
    the CPU, so that they are the same on every device.

    Attributes:
        streamed: a thread reads the batches ahead of time; by itself, where the pictures do not fit. The same
            batches come in the same order either way.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        device: torch.device,
        order: Literal["as_is", "shuffle", "balanced"] = "as_is",
        streamed: bool | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.device = device
        self.order = order
        self.streamed = _too_large(images, device) if streamed is None else streamed
        self.labels = torch.tensor(images.labels, device=device)
        self._pixels = None if device.type == "cpu" or self.streamed else _copied(images, device)

    def __len__(self) -> int:
        """Batches a pass."""
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        batches = max(1, self.images.piece // self.batch_size)  # one gather for several small ones
        together = batches * self.batch_size
        rows = self._rows()
        here = rows.to(self.device).split(together)  # once a pass: a GPU is waited for
        gathered: Iterator[Tensor]
        if self._pixels is not None:
            gathered = map(self._pixels.__getitem__, here)
        elif self.streamed:
            gathered = prefetch(self._read, rows.split(together), 1, PREFETCH)
        else:
            gathered = map(self._read, rows.split(together))
        for places, pixels in zip(here, gathered):
            parts = (pixels.to(self.device, non_blocking=True), self.labels[places], places)
            yield from map(Batch, *(part.split(self.batch_size) for part in parts))

    def _read(self, rows: Tensor) -> Tensor:
        """Straight from the source, which may be a mapped file: beside it there is never a copy of a split."""
        pixels = torch.from_numpy(self.images.gathered(self.images.rows[rows.numpy()]))
        return pixels.pin_memory() if self.device.type == "cuda" else pixels  # from there the card copies by itself

    def _rows(self) -> Tensor:
        if self.order == "as_is":
            return torch.arange(len(self.images))
        if self.order == "shuffle":
            return torch.randperm(len(self.images))
        chances = torch.from_numpy(self.images.balancing_weights[self.images.labels])
        return torch.multinomial(chances, len(self.images), replacement=True)


def _too_large(images: Images, device: torch.device) -> bool:
    """For memory, or for the card, which has to hold the network and all that it computes as well."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return images.nbytes > 0.6 * free
    return images.streamed


def _copied(images: Images, device: torch.device) -> Tensor:
    """All pixels on the device, copied piece by piece: in the computer's own memory there is never all of it."""
    pixels = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for piece in images.pieces():
        pixels[start : start + len(piece)] = torch.from_numpy(piece)
        start += len(piece)
    return pixels
