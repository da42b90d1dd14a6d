"""Pictures that a data set holds twice: copies, and the same shot with other colours, size, crop or compression.

A picture is described by its low frequencies (discrete cosine transform), as in a perceptual hash, but their values
are kept instead of their signs, and two pictures are compared by the cosine between them. Measured on CIFAR-10 against
the 249 pairs of one shot in test and training that Barz and Denzler list ("Do we train on test data? Purging CIFAR of
near-duplicates", 2020, ciFAIR): among the 389 nearest pairs of 500 million are 164 of them, against 124 among the 394
within 8 bits of a 64-bit hash of the grey picture. Every pair is compared, so none within reach is missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.data import Images, Splits

# On CIFAR-10 (recompressed as JPEG), by eye: of 120 pairs drawn above 0.85, 115 are one shot; of 120 from 0.84 to 0.87,
# 107; of 120 from 0.82 to 0.84, 98. Above 0.85 are 164 of the 249 listed pairs, above 0.80 185, above 0.74 214.
SIMILARITY = 0.85
GREY, COLOUR = 8, 5  # frequencies a direction
COLOUR_WEIGHT = 0.5  # of each of the two colour differences; lower, and pictures of the sea are taken for each other
FAINT = 10.0  # grey levels; with less structure than this, noise and compression are most of what differs
BLOCK = 4096  # rows of a block of comparisons: 64 MiB of similarities
LIMIT = 2_000  # pairs kept of each two splits; all are counted


@dataclass(frozen=True)
class Place:
    """Where a picture is: the row counts within its split, from 0."""

    split: str
    row: int
    label: str


@dataclass(frozen=True)
class Pair:
    """Two pictures that are one; `similarity` is at most 1, and `exact` says that every pixel is the same."""

    first: Place
    second: Place
    similarity: float
    exact: bool

    @property
    def across(self) -> bool:
        return self.first.split != self.second.split


@dataclass(frozen=True)
class Overlap:
    """What two splits share (or one split with itself): pairs, and the pictures of the second that are in one."""

    first: str
    second: str
    exact: int
    near: int
    pictures: int
    size: int  # pictures of the second split


@dataclass(frozen=True)
class Duplicates:
    """All overlaps, and of each the most similar pairs: across splits first, then by similarity."""

    overlaps: tuple[Overlap, ...]
    pairs: tuple[Pair, ...]

    def count(self, across: bool) -> int:
        """All pairs across splits, or all within one."""
        return sum(o.exact + o.near for o in self.overlaps if (o.first != o.second) == across)


def find_duplicates(splits: Splits, similarity: float = SIMILARITY, limit: int = LIMIT) -> Duplicates:
    """Every pair of pictures of which the descriptions are at least `similarity` alike, and every pair of copies.

    All pairs are compared: 60,000 pictures of 32x32 take 12 s on one core, twice as many four times that.
    Memory beyond the pictures: 0.5 kB a picture, and 110 MB.
    """
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    described = {name: (describe(images), images.fingerprints()) for name, images in sets.items()}
    overlaps, pairs = [], []
    for first, second in itertools.combinations_with_replacement(sets, 2):
        matches = _matches(*described[first], *described[second], first == second, similarity)
        overlap, kept = _collect(matches, first, second, len(sets[second]), limit)
        overlaps.append(overlap)
        pairs += [
            Pair(_place(first, sets[first], int(i)), _place(second, sets[second], int(j)), float(score), bool(exact))
            for i, j, score, exact in zip(*kept)
        ]
    pairs.sort(key=lambda pair: (not pair.across, not pair.exact, -pair.similarity))
    return Duplicates(tuple(overlaps), tuple(pairs))


def _place(split: str, images: Images, row: int) -> Place:
    return Place(split, row, images.classes[images.labels[row]])


def describe(images: Images) -> np.ndarray:
    """Low frequencies of every picture, float32, shape (N, 111) for pictures of at least 8x8; the length is at most 1.

    Grey and two colour differences, each without its mean: neither brightness nor a tint changes them. Each is brought
    to length 1, so contrast does not either, except where there is next to none (FAINT).
    """
    *_, height, width = images.shape
    parts = [_frequencies(piece) for piece in images.pieces()]
    grey, blue, red = (np.concatenate(part) / np.sqrt(height * width, dtype=np.float32) for part in zip(*parts))
    described = np.concatenate([_unit(grey, FAINT), *(COLOUR_WEIGHT * _unit(part, FAINT) for part in (blue, red))], 1)
    return _unit(described, 1.0)


def _frequencies(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients of grey, blue - grey and red - grey for pixels of shape (N, 3, H, W), each of shape (N, ...).

    Times their frequency: in natural pictures amplitude falls with it, and without this the few lowest decide alone.
    """
    red, green, blue = (pixels[:, channel].astype(np.float32) for channel in range(3))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    found = []
    for plane, count in ((grey, GREY), (blue - grey, COLOUR), (red - grey, COLOUR)):
        down, across = (_cosines(size, count) for size in plane.shape[1:])
        frequency = np.hypot(np.arange(len(down))[:, None], np.arange(len(across))).astype(np.float32)
        found.append((down @ plane @ across.T * frequency).reshape(len(plane), -1)[:, 1:])
    return tuple(found)


def _cosines(size: int, count: int) -> np.ndarray:
    """The first rows of the orthonormal DCT-II matrix, shape (min(count, size), size)."""
    rows = np.arange(min(count, size))[:, None]
    cosines = np.sqrt(2 / size) * np.cos(np.pi * (2 * np.arange(size) + 1) * rows / (2 * size))
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)


def _unit(rows: np.ndarray, at_least: float) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), at_least)


def _matches(
    first: np.ndarray,
    first_copies: np.ndarray,
    second: np.ndarray,
    second_copies: np.ndarray,
    within: bool,
    similarity: float,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Block after block of (rows of first, rows of second, similarities, exact); `within`: each pair once."""
    copies = np.unique(np.concatenate([first_copies, second_copies]), return_inverse=True)[1].astype(np.int32)
    first_copies, second_copies = copies[: len(first)], copies[len(first) :]
    for top in range(0, len(first), BLOCK):
        for left in range(top if within else 0, len(second), BLOCK):
            scores = first[top : top + BLOCK] @ second[left : left + BLOCK].T
            same = first_copies[top : top + BLOCK, None] == second_copies[None, left : left + BLOCK]
            i, j = np.divmod(np.flatnonzero((scores >= similarity) | same), scores.shape[1])
            if within and top == left:
                i, j = i[i < j], j[i < j]
            exact = same[i, j]
            yield i + top, j + left, np.where(exact, 1, np.minimum(scores[i, j], 1)), exact


def _collect(
    matches: Iterator[tuple[np.ndarray, ...]], first: str, second: str, size: int, limit: int
) -> tuple[Overlap, tuple[np.ndarray, ...]]:
    """Counts of all matches and the `limit` best of them, however many there are."""
    exact = total = 0
    touched = np.zeros(size, dtype=bool)
    best: tuple[np.ndarray, ...] = (np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    for match in matches:
        total += len(match[0])
        exact += int(match[3].sum())
        touched[match[1]] = True
        if first == second:
            touched[match[0]] = True
        best = tuple(np.concatenate(columns) for columns in zip(best, match))
        order = np.argsort(-best[2], kind="stable")[:limit]
        best = tuple(column[order] for column in best)
    return Overlap(first, second, exact, total - exact, int(touched.sum()), size), best
