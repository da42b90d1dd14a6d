"""Sizes, aspect ratios and formats of picture files, from their headers: the pixels are not decoded."""

from __future__ import annotations

import collections
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from experiments.config.wording import counted, percent
from experiments.data.prefetch import prefetch
from experiments.reports.drawing import BLUE, GREY, Figure

THREADS = 8  # they wait for the disk
TURNED = (5, 6, 7, 8)  # values of the EXIF orientation that swap width and height
SQUARE = 1.05  # an aspect ratio below, and above its inverse, looks square
NAMED = 20  # broken pictures that are listed


@dataclass(frozen=True)
class Headers:
    """What the headers of picture files say.

    Attributes:
        sizes: (width, height) of each picture as it is shown, int64 (N, 2), without those that cannot be read.
        formats: name -> pictures, the most frequent first.
        size: bytes of all files.
        unreadable: pictures without a header that can be read.
    """

    sizes: np.ndarray
    formats: dict[str, int]
    size: int
    unreadable: int

    @property
    def aspects(self) -> np.ndarray:
        """Width / height, (N,)."""
        return self.sizes[:, 0] / self.sizes[:, 1]


def read_headers(paths: Sequence[str]) -> Headers:
    found = [header for header in prefetch(_header, paths, THREADS, 64 * THREADS) if header]
    sizes = np.array([size for size, _ in found], dtype=np.int64).reshape(-1, 2)
    formats = collections.Counter(name for _, name in found)
    return Headers(sizes, dict(formats.most_common()), sum(map(os.path.getsize, paths)), len(paths) - len(found))


def _header(path: str) -> tuple[tuple[int, int], str] | None:
    """((width, height), format); None if it cannot be read."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # about sizes and metadata
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            return image.size[::-1] if turned else image.size, image.format or "?"
    except Exception:  # for broken files, Pillow's readers raise nearly anything
        return None


def header_lines(headers: Headers, image_size: int) -> Iterator[str]:
    """The number of pictures, and the range of their sizes and aspect ratios."""
    total = len(headers.sizes) + headers.unreadable
    formats = ", ".join(f"{count:,} {name}" for name, count in headers.formats.items())
    yield f"pictures   {counted(total, 'file')} of {headers.size / 1e6:,.1f} MB: {formats or 'none can be read'}"
    if not len(headers.sizes):
        return
    for name, values in (("width", headers.sizes[:, 0]), ("height", headers.sizes[:, 1])):
        low, median, high = np.quantile(values, (0, 0.5, 1))
        yield f"{name:<10} {low:,.0f} to {high:,.0f} pixels, median {median:,.0f}"
    aspects = headers.aspects
    low, median, high = np.quantile(aspects, (0, 0.5, 1))
    wide, tall = (aspects >= SQUARE).sum(), (aspects <= 1 / SQUARE).sum()
    square = len(aspects) - wide - tall
    yield f"aspect     {low:.2f} to {high:.2f} (width / height), median {median:.2f}; {wide:,} wide, {square:,} square, {tall:,} tall"
    small = int((headers.sizes.min(axis=1) < image_size).sum())
    if small:
        share = small / len(aspects)
        yield f"small      {counted(small, 'picture')} ({percent(share)}) with a side below data.image_size={image_size}"


def broken_lines(problems: Sequence[str]) -> Iterator[str]:
    """The broken pictures, each with its name and what is wrong."""
    if not problems:
        yield "broken     none"
        return
    yield f"broken     {counted(len(problems), 'picture')}; data.skip_broken=true leaves them out:"
    yield from (f"  {problem}" for problem in problems[:NAMED])
    if len(problems) > NAMED:
        yield f"  and {len(problems) - NAMED:,} more"


def sizes_figure(headers: Headers) -> Figure:
    """Every picture by width and height, and a histogram of the aspect ratios."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    scatter, histogram = figure.subplots(1, 2)
    scatter.plot(*headers.sizes.T, "o", ms=3, color=BLUE, alpha=0.4)
    scatter.axline((0, 0), slope=1, color=GREY, lw=1, ls="--")
    scatter.set(xlabel="width in pixels", ylabel="height in pixels", title="Sizes")
    scatter.set_xlim(0, 1.05 * headers.sizes[:, 0].max())
    scatter.set_ylim(0, 1.05 * headers.sizes[:, 1].max())
    octaves = np.log2(headers.aspects)
    histogram.hist(octaves, bins=np.arange(octaves.min() - 0.05, octaves.max() + 0.1, 0.1), color=BLUE)
    marks = {"1:2": -1, "3:4": np.log2(3 / 4), "1:1": 0, "4:3": np.log2(4 / 3), "2:1": 1}
    histogram.set_xticks(list(marks.values()), list(marks))
    histogram.set_xlim(min(-1.1, octaves.min() - 0.1), max(1.1, octaves.max() + 0.1))
    histogram.set(xlabel="width : height", ylabel="pictures", title="Aspect ratios")
    for axes in (scatter, histogram):
        axes.grid(alpha=0.3)
    return figure
