"""Which rows of every batch a process trains on, if there are several of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of a batch one of `count` processes trains on.

    A batch is first divided into parts, as one process divides it (training.accumulate), and each part among the processes.
    """

    rank: int
    count: int
    batch_size: int
    parts: int

    def of(self, size: int) -> list[range]:
        """The rows in each part of a batch of `size` images; a part may have none."""
        parts = shares(range(size), part_count(size, self.batch_size, self.parts))
        return [shares(part, self.count)[self.rank] for part in parts]

    def indices(self, size: int) -> Tensor:
        """The same rows of all parts, int64."""
        return torch.cat([torch.arange(rows.start, rows.stop) for rows in self.of(size)])

    def of_pass(self, sizes: Sequence[int]) -> tuple[Tensor, list[int]]:
        """(rows of all batches one after another, how many of each batch), for batches of these sizes."""
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        rows = [start + self.indices(size) for start, size in zip(starts, sizes)]
        return torch.cat(rows), list(map(len, rows))

    def pieces(self, images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(images, targets) of this process in each part of a batch.

        Args:
            images: of this process, or of the whole batch.
            targets: of the whole batch.
        """
        parts = self.of(len(targets))
        if len(images) == len(targets):
            own = [images[part.start : part.stop] for part in parts]
        else:
            own = list(images.split(list(map(len, parts))))
        return [(some, targets[part.start : part.stop]) for some, part in zip(own, parts)]


def shares(rows: range, count: int) -> list[range]:
    """`rows` divided into `count` ranges of nearly equal lengths, as `torch.tensor_split` does."""
    size, more = divmod(len(rows), count)
    ends = [number * size + min(number, more) for number in range(count + 1)]
    return [rows[start:end] for start, end in itertools.pairwise(ends)]


def part_count(images: int, batch_size: int, parts: int) -> int:
    """How many parts a batch of so many images has: none is larger than a whole batch in `parts` parts.

    No part has only one image, which has no variance for BatchNorm, unless all have.
    """
    size = -(-batch_size // parts)
    count = -(-images // size)
    return max(1, min(count, images // 2)) if size > 1 else count


def split_in_parts(images: Tensor, targets: Tensor, batch_size: int, parts: int) -> list[tuple[Tensor, Tensor]]:
    """A batch in as many parts of nearly equal sizes as `part_count` tells."""
    count = part_count(len(images), batch_size, parts)
    return list(zip(images.tensor_split(count), targets.tensor_split(count)))
