"""Duplicate images in a data set: copies, and the same photograph with other colours, size, crop or compression.

An image is described by its low frequencies (discrete cosine transform), as in a perceptual hash, but with their values
instead of their signs, and two images are compared by the cosine between their descriptions. Measured on CIFAR-10 with the
249 pairs of the same photograph in test and training that Barz and Denzler list ("Do we train on test data? Purging CIFAR
of near-duplicates", 2020, ciFAIR): the 389 most similar of 500 million pairs contain 164 of them; the 394 pairs within 8
bits of a 64-bit hash of the grey image contain 124. All pairs are compared, so none above the similarity is missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.data import Images, Splits

# On CIFAR-10 (recompressed as JPEG), judged by eye: of 120 pairs drawn above 0.85, 115 are of the same photograph; of 120
# from 0.84 to 0.87, 107; of 120 from 0.82 to 0.84, 98. Of the 249 listed pairs, 164 are above 0.85, 185 above 0.80, and
# 214 above 0.74.
SIMILARITY = 0.85
GREY, COLOUR = 8, 5  # frequencies per direction
COLOUR_WEIGHT = 0.5  # of each of the two colour differences; with a lower weight, different images of the sea match
FAINT = 10.0  # grey levels; with less structure than this, most differences are noise and compression
BLOCK = 4096  # images per side of a block of comparisons: 64 MiB of similarities
LIMIT = 2_000  # pairs that are listed for each two splits; all are counted


@dataclass(frozen=True)
class Place:
    """Where an image is: its index within a split, from 0, and the name of its picture."""

    split: str
    index: int
    name: str
    label: str


@dataclass(frozen=True)
class Pair:
    """Two images that are duplicates; `similarity` is at most 1, and `exact` means that every pixel is the same."""

    first: Place
    second: Place
    similarity: float
    exact: bool

    @property
    def across(self) -> bool:
        return self.first.split != self.second.split


@dataclass(frozen=True)
class Overlap:
    """The duplicates in two splits, or within one: the numbers of exact and near pairs."""

    first: str
    second: str
    exact: int
    near: int
    images: int  # those of the second split that are in a pair
    size: int  # images of the second split


@dataclass(frozen=True)
class Duplicates:
    """All overlaps, and the most similar pairs of each: pairs across splits first, then by similarity."""

    overlaps: tuple[Overlap, ...]
    pairs: tuple[Pair, ...]

    def count(self, across: bool) -> int:
        """The number of all pairs across splits, or of all within a split."""
        return sum(o.exact + o.near for o in self.overlaps if (o.first != o.second) == across)


def find_duplicates(
    splits: Splits, similarity: float = SIMILARITY, limit: int = LIMIT, of_two_classes: bool = False
) -> Duplicates:
    """All pairs of images with descriptions of at least this similarity, and all pairs of copies.

    60,000 images of 32x32 pixels take 12 s on one core, and twice as many take four times as long. Needs 0.5 kB per image
    and 110 MB of memory, besides the images.

    Args:
        limit: pairs that are listed for each two splits.
        of_two_classes: only pairs with different labels.
    """
    parts = splits.parts()
    described = {name: (describe(images), images.pixel_hashes()) for name, images in parts.items()}
    overlaps, pairs = [], []
    for first, second in itertools.combinations_with_replacement(parts, 2):
        matches = _matches(*described[first], *described[second], first == second, similarity)
        if of_two_classes:
            matches = _of_two_classes(matches, parts[first].labels, parts[second].labels)
        overlap, kept = _collect(matches, first, second, len(parts[second]), limit)
        overlaps.append(overlap)
        pairs += [
            Pair(_place(first, parts[first], int(i)), _place(second, parts[second], int(j)), float(score), bool(exact))
            for i, j, score, exact in zip(*kept)
        ]
    pairs.sort(key=lambda pair: (not pair.across, not pair.exact, -pair.similarity))
    return Duplicates(tuple(overlaps), tuple(pairs))


def _place(split: str, images: Images, index: int) -> Place:
    return Place(split, index, images.name(index), images.classes[images.labels[index]])


def describe(images: Images) -> np.ndarray:
    """Low frequencies of every image, float32, shape (N, 111) for images of at least 8x8 pixels; the length is at most 1.

    They are those of grey and of two colour differences, each without its mean, so that neither brightness nor a tint
    changes them. Each is scaled to length 1, so that contrast does not change them unless there is almost none (FAINT).
    """
    *_, height, width = images.shape
    parts = [_frequencies(chunk) for chunk in images.chunks()]
    grey, blue, red = (np.concatenate(part) / np.sqrt(height * width, dtype=np.float32) for part in zip(*parts))
    described = np.concatenate([_unit(grey, FAINT), *(COLOUR_WEIGHT * _unit(part, FAINT) for part in (blue, red))], 1)
    return _unit(described, 1.0)


def _frequencies(pixels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Coefficients of grey, blue - grey and red - grey for pixels of shape (N, 3, H, W), each of shape (N, ...).

    They are multiplied by their frequency: in natural images the amplitude falls with it, so that otherwise only the
    lowest few would matter.
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
    frequencies = np.arange(min(count, size))[:, None]
    cosines = np.sqrt(2 / size) * np.cos(np.pi * (2 * np.arange(size) + 1) * frequencies / (2 * size))
    cosines[0] /= np.sqrt(2)
    return cosines.astype(np.float32)


def _unit(vectors: np.ndarray, at_least: float) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), at_least)


def _matches(
    first: np.ndarray,
    first_copies: np.ndarray,
    second: np.ndarray,
    second_copies: np.ndarray,
    within: bool,
    similarity: float,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields (indices of first, indices of second, similarities, exact) per block; `within` one split, each pair once."""
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


def _of_two_classes(
    matches: Iterator[tuple[np.ndarray, ...]], first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[np.ndarray, ...]]:
    for match in matches:
        differ = first[match[0]] != second[match[1]]
        yield tuple(column[differ] for column in match)


def _collect(
    matches: Iterator[tuple[np.ndarray, ...]], first: str, second: str, size: int, limit: int
) -> tuple[Overlap, tuple[np.ndarray, ...]]:
    """The number of all matches, and the `limit` best of them."""
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
