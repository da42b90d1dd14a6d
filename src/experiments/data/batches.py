"""Batches of uint8 images: on a CPU copied from the images, on any other device from a copy of all of them on it.

Images that are too large for that are streamed: a thread reads the next batches from the file during training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from experiments.data.images import Batch, Images
from experiments.data.prefetch import prefetch

PREFETCH = 3  # chunks of one or more batches: enough to hide an occasional slow read


class Batches:
    """Iterates over every `Batch` of the images on `device`; the last batch may be smaller.

    In training, a last batch of one image, or below a quarter of the others, is merged with the one before: one image has no
    variance for BatchNorm, and the statistics of a few spoil the running ones.

    The order is that of `images` (`as_is`), a new permutation in every pass (`shuffle`), or a new draw with replacement in
    every pass, in which all classes are equally frequent (`balanced`). Random numbers come from torch's global generator
    of the CPU, so that they are the same on every device.

    Attributes:
        sizes: images per batch, in the order of a pass.
        streamed: whether a thread reads the batches in advance; by default, if the images do not fit in memory. The
            batches and their order are the same.
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
        self.sizes = _sizes(len(images), batch_size, merge=order != "as_is")
        self.streamed = _too_large(images, device) if streamed is None else streamed
        self.labels = torch.tensor(images.labels, device=device)
        self._pixels = None if device.type == "cpu" or self.streamed else _copied(images, device)

    def __len__(self) -> int:
        """Batches per pass."""
        return len(self.sizes)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, step: int) -> Iterator[Batch]:
        """A pass without its first `step` batches, which are not read. Its random numbers are drawn now, all of them."""
        return self._pass(self._order()[sum(self.sizes[:step]) :], self.sizes[step:])

    def _pass(self, order: Tensor, sizes: Sequence[int]) -> Iterator[Batch]:
        batches = max(1, self.images.source.chunk_size // self.batch_size)  # several small ones are copied at once
        groups = [sizes[start : start + batches] for start in range(0, len(sizes), batches)]
        together = [sum(group) for group in groups]
        on_device = order.to(self.device).split(together)  # once per pass, because it waits for a GPU
        chunks: Iterator[Tensor]
        if self._pixels is not None:
            chunks = map(self._pixels.__getitem__, on_device)
        elif self.streamed:
            chunks = prefetch(self._read, order.split(together), 1, PREFETCH)
        else:
            chunks = map(self._read, order.split(together))
        for group, indices, pixels in zip(groups, on_device, chunks):
            parts = (pixels.to(self.device, non_blocking=True), self.labels[indices], indices)
            yield from map(Batch, *(part.split(group) for part in parts))

    def _read(self, indices: Tensor) -> Tensor:
        """Pixels directly from the source, which may be a mapped file: there is never a copy of a whole split."""
        pixels = torch.from_numpy(self.images.take(indices.numpy()))
        return (
            pixels.pin_memory() if self.device.type == "cuda" else pixels
        )  # a GPU copies pinned memory asynchronously

    def _order(self) -> Tensor:
        if self.order == "as_is":
            return torch.arange(len(self.images))
        if self.order == "shuffle":
            return torch.randperm(len(self.images))
        weights = torch.from_numpy(self.images.balancing_weights[self.images.labels])
        return torch.multinomial(weights, len(self.images), replacement=True)


def _sizes(images: int, batch_size: int, merge: bool) -> list[int]:
    full, rest = divmod(images, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if merge and full and 0 < rest < batch_size and (rest == 1 or 4 * rest < batch_size):
        sizes[-2:] = [batch_size + rest]
    return sizes


def _too_large(images: Images, device: torch.device) -> bool:
    """Whether the images do not fit in memory, or in that of the GPU, which also needs room for the network and its results."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return images.nbytes > 0.6 * free
    return images.source.streamed


def _copied(images: Images, device: torch.device) -> Tensor:
    """All pixels on the device, copied chunk by chunk, so that the host's memory never holds all of them."""
    pixels = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for chunk in images.chunks():
        pixels[start : start + len(chunk)] = torch.from_numpy(chunk)
        start += len(chunk)
    return pixels
