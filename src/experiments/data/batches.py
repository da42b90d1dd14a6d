"""Batches of uint8 images: on a CPU copied from the images, on any other device from a copy of all of them on it.

Images that are too large for that are streamed: a thread reads the next batches during training, and they are copied to
the device while the network computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.config.wording import counted
from experiments.data.device_memory import copied, copied_ahead, fit, nbytes
from experiments.data.images import Batch, Images
from experiments.data.on_the_fly import workers
from experiments.data.prefetch import prefetch
from experiments.data.rows import Rows

if TYPE_CHECKING:
    from experiments.data.crops import RandomCrops

PIECE = 8  # pictures that a thread decodes at a time
PREFETCH = 3  # chunks of one or more batches: enough to hide an occasional slow read


class Piece(NamedTuple):
    """The rows of a chunk that a thread fills with the images at `indices` of their source."""

    chunk: np.ndarray
    first: int
    indices: np.ndarray
    draws: np.ndarray | None


class Batches:
    """Iterates over every `Batch` of the images on `device`; the last batch may be smaller.

    In training, a last batch of one image, or below a quarter of the others, is merged with the one before: one image has no
    variance for BatchNorm, and the statistics of a few spoil the running ones.

    The order is that of `images` (`as_is`), a new permutation in every pass (`shuffle`), or a new draw with replacement in
    every pass, in which all classes are equally frequent (`balanced`). Random numbers come from torch's global generator
    of the CPU, so that they are the same on every device.

    Args:
        crops: cut from the photographs instead of taking the images; their random numbers are drawn after the order.
        threads: that decode and cut, see data.workers; None: all processors.
        beside: other images that a GPU must have room for, too, if it keeps these.
        rows: the only ones of each batch whose pixels are read; None: all. Labels and indices are of the whole batch.

    Attributes:
        sizes: images per batch, in the order of a pass.
        streamed: whether a thread reads the batches in advance; by default, if the images do not fit in the memory of the
            device. The batches and their order are the same.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        device: torch.device,
        order: Literal["as_is", "shuffle", "balanced"] = "as_is",
        streamed: bool | None = None,
        crops: RandomCrops | None = None,
        threads: int | None = None,
        beside: Sequence[Images] = (),
        rows: Rows | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.device = device
        self.order = order
        self.crops = crops
        self.threads = workers(threads)
        self.rows = rows
        self.sizes = batch_sizes(len(images), batch_size, merge=order != "as_is")
        if streamed is None:
            kept = beside if crops else [images, *beside]
            streamed = images.source.streamed if device.type == "cpu" else not fit(kept, device)
        self.streamed = streamed
        self.labels = torch.tensor(images.labels, device=device)
        resident = device.type != "cpu" and not self.streamed and not crops
        self._pixels = copied(images, device) if resident else None
        self._pins = device.type == "cuda" and torch.cuda.is_available()  # it may be a fake device

    def __len__(self) -> int:
        """Batches per pass."""
        return len(self.sizes)

    @property
    def note(self) -> str:
        """Where the pixels come from, if not from memory, in words."""
        source, threads = self.images.source, counted(self.threads, "thread")
        if self._pixels is not None:
            return ""
        if source.on_the_fly:
            return f"{counted(len(self.images), 'photograph')}, decoded on the fly by {threads}"
        if self.crops and self.crops.copies:
            copies = self.crops.copies
            return f"random crops of {len(source):,} photographs, kept with {copies.shorter} pixels per shorter side ({copies.nbytes / 1e9:.1f} GB), cut by {threads}"
        if self.streamed and not self.crops:
            where = "from disk" if self.device.type == "cpu" else "because the GPU has no room for them"
            size = f"{nbytes(self.images) / 1e9:.1f} GB"
            return f"{size} of training images, streamed {where}, {PREFETCH} or more batches prefetched"
        return ""

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, step: int) -> Iterator[Batch]:
        """A pass without its first `step` batches, which are not read. Its random numbers are drawn now, all of them."""
        order = self._order()
        draws = self.crops.draw(len(order)) if self.crops else None
        skipped = sum(self.sizes[:step])
        return self._pass(order[skipped:], None if draws is None else draws[skipped:], self.sizes[step:])

    def _pass(self, order: Tensor, draws: np.ndarray | None, sizes: Sequence[int]) -> Iterator[Batch]:
        batches = max(1, self.images.source.chunk_size // self.batch_size)  # several small ones are copied at once
        groups = read = _grouped(sizes, batches)
        on_device = order.to(self.device).split(list(map(sum, groups)))  # once per pass, because it waits for a GPU
        if self.rows:
            here, counts = self.rows.of_pass(sizes)
            order, draws, read = order[here], None if draws is None else draws[here.numpy()], _grouped(counts, batches)
        together = list(map(sum, read))
        chunks: Iterator[Tensor]
        if self._pixels is not None:
            chunks = map(self._pixels.__getitem__, order.to(self.device).split(together) if self.rows else on_device)
        elif draws is not None or self.images.source.on_the_fly:
            chunks = self._decoded(order, draws, together)
        elif self.streamed:
            chunks = prefetch(self._read, order.split(together), 1, PREFETCH)
        else:
            chunks = map(self._read, order.split(together))
        if self._pins and self._pixels is None:
            chunks = copied_ahead(chunks, self.device)
        for group, own, indices, pixels in zip(groups, read, on_device, chunks):
            there = pixels.to(self.device).split(own)  # MPS may not copy from pageable memory in the background
            yield from map(Batch, there, self.labels[indices].split(group), indices.split(group))

    def _read(self, indices: Tensor) -> Tensor:
        """Pixels directly from the source, which may be a mapped file: there is never a copy of a whole split."""
        pixels = torch.from_numpy(self.images.take(indices.numpy()))
        return pixels.pin_memory() if self._pins else pixels  # CUDA copies pinned memory in the background

    def _decoded(self, order: Tensor, draws: np.ndarray | None, sizes: Sequence[int]) -> Iterator[Tensor]:
        """Chunks of `sizes` images, each filled by several threads. An image is the same, whichever thread decodes it."""
        pieces = [-(-size // PIECE) for size in sizes]
        waiting = 2 * max(self.threads, *pieces)
        filled = prefetch(self._fill, self._pieces(order, draws, sizes), self.threads, waiting)
        for count in pieces:
            chunk = np.empty((0, *self.images.shape[1:]), dtype=np.uint8)  # of another process only
            for piece in itertools.islice(filled, count):
                chunk = piece.chunk
            yield torch.from_numpy(chunk)

    def _pieces(self, order: Tensor, draws: np.ndarray | None, sizes: Sequence[int]) -> Iterator[Piece]:
        indices, start = self.images.indices[order.numpy()], 0
        for size in sizes:
            chunk = torch.empty((size, *self.images.shape[1:]), dtype=torch.uint8, pin_memory=self._pins).numpy()
            for first in range(0, size, PIECE):
                rows = slice(start + first, start + min(first + PIECE, size))
                yield Piece(chunk, first, indices[rows], None if draws is None else draws[rows])
            start += size

    def _fill(self, piece: Piece) -> Piece:
        for place, index in enumerate(piece.indices.tolist()):
            if self.crops and piece.draws is not None:
                piece.chunk[piece.first + place] = self.crops.cut(index, piece.draws[place])
            else:
                piece.chunk[piece.first + place] = self.images.source.image(index)
        if self.crops:
            self.crops.release()
        return piece

    def _order(self) -> Tensor:
        if self.order == "as_is":
            return torch.arange(len(self.images))
        if self.order == "shuffle":
            return torch.randperm(len(self.images))
        weights = torch.from_numpy(self.images.balancing_weights[self.images.labels])
        return torch.multinomial(weights, len(self.images), replacement=True)


def batch_sizes(images: int, batch_size: int, merge: bool) -> list[int]:
    """Images per batch, in the order of a pass; `merge`: a small last batch belongs to the one before."""
    full, rest = divmod(images, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if merge and full and 0 < rest < batch_size and (rest == 1 or 4 * rest < batch_size):
        sizes[-2:] = [batch_size + rest]
    return sizes


def _grouped(sizes: Sequence[int], count: int) -> list[Sequence[int]]:
    return [sizes[start : start + count] for start in range(0, len(sizes), count)]
