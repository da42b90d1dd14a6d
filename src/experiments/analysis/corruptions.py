"""The common corruptions of Hendrycks & Dietterich (2019, arXiv:1903.12261): noise, blur, weather, digital; our own code.

corrupt(images.pixels, "fog", 3)  # uint8 (N, 3, H, W), as the argument

What is random is drawn with a seed of the picture, the corruption and the strength, so a picture is corrupted in the same
way alone and among others. For the same reason all sums are computed element by element: a sum of a matrix product, or of
a network's convolution, is rounded differently for another number of pictures.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from experiments.analysis.strengths import CORRUPTIONS

Draws = Sequence[np.random.Generator]  # one per picture

CACHED = 1 << 17  # values that stay in a core's cache during a computation
ICE = np.array([0.82, 0.92, 1.0], dtype=np.float32)[:, None, None]


def corrupt(pixels: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Pictures, uint8 (N, 3, H, W), after the corruption `name` of strength 1 to 5."""
    levels = CORRUPTIONS[name].levels(strength, pixels.shape[-1])
    corrupted, step = np.empty_like(pixels), max(1, CACHED // pixels[0].size)
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        draws = [_generator(picture, name, strength) for picture in part]
        x = FUNCTIONS[name](part.astype(np.float32) / np.float32(255), draws, *levels)
        corrupted[start : start + step] = np.rint(np.clip(x, 0, 1) * np.float32(255))
    return corrupted


def _generator(picture: np.ndarray, name: str, strength: int) -> np.random.Generator:
    digest = hashlib.blake2b(picture.tobytes(), digest_size=16, key=f"{name} {strength}".encode())
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))


def gaussian_noise(x: np.ndarray, draws: Draws, deviation: float) -> np.ndarray:
    noise = np.stack([draw.standard_normal(x.shape[1:], dtype=np.float32) for draw in draws])
    return x + noise * np.float32(deviation)


def shot_noise(x: np.ndarray, draws: Draws, photons: float) -> np.ndarray:
    counts = np.stack([draw.poisson(picture * photons) for draw, picture in zip(draws, x)])
    return counts.astype(np.float32) / np.float32(photons)


def impulse_noise(x: np.ndarray, draws: Draws, fraction: float) -> np.ndarray:
    place = np.stack([draw.random(x.shape[1:], dtype=np.float32) for draw in draws])
    return np.where(place < fraction / 2, 0, np.where(place < fraction, 1, x))


def defocus_blur(x: np.ndarray, draws: Draws, radius: float) -> np.ndarray:
    """The mean over a disk, whose edge pixels count by the part of them that it covers."""
    radius *= x.shape[-1]
    reach, parts = math.ceil(radius - 0.5), 16
    fine = (np.arange((2 * reach + 1) * parts) + 0.5) / parts - reach - 0.5
    inside = fine[:, None] ** 2 + fine[None] ** 2 <= radius**2
    return _convolved(x, inside.reshape(2 * reach + 1, parts, 2 * reach + 1, parts).mean(axis=(1, 3)))


def glass_blur(x: np.ndarray, draws: Draws, deviation: float) -> np.ndarray:
    """Every pixel is taken from a random place nearby, between two slight blurs."""
    deviation *= x.shape[-1]
    side, sigma = x.shape[-1], (0, 0, 0.7 * deviation, 0.7 * deviation)
    shifts = np.stack([draw.standard_normal((2, side, side), dtype=np.float32) for draw in draws])
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    rows, columns = np.clip(grid + np.rint(shifts * np.float32(deviation)).astype(int), 0, side - 1).swapaxes(0, 1)
    return ndimage.gaussian_filter(_gathered(ndimage.gaussian_filter(x, sigma), rows, columns), sigma)


def motion_blur(x: np.ndarray, draws: Draws, length: float) -> np.ndarray:
    return _streaked(x, [draw.uniform(-math.pi / 4, math.pi / 4) for draw in draws], length * x.shape[-1])


def zoom_blur(x: np.ndarray, draws: Draws, largest: float) -> np.ndarray:
    """The mean of the picture enlarged by 1 to `largest`, whose border moves by about a pixel at a time."""
    middle = (x.shape[-1] - 1) / 2
    steps = max(4, math.ceil(middle * (largest - 1)))
    total = x.copy()
    for factor in np.linspace(1, largest, steps + 1)[1:]:
        total += _stretched(x, middle + (np.arange(x.shape[-1]) - middle) / factor)
    return total / np.float32(steps + 1)


def snow(x: np.ndarray, draws: Draws, fraction: float, size: float, length: float, whitening: float) -> np.ndarray:
    side = x.shape[-1]
    grid = max(4, round(1 / size))
    places = np.linspace(-0.5, grid - 0.5, side, endpoint=False) + grid / side / 2
    flakes = np.stack([draw.random((1, grid, grid), dtype=np.float32) < fraction for draw in draws])
    fallen = _stretched(flakes.astype(np.float32), np.clip(places, 0, grid - 1))
    angles = [draw.uniform(math.pi / 4, 3 * math.pi / 4) for draw in draws]
    fallen = _streaked(fallen, angles, length * side)
    grey = x.mean(axis=1, keepdims=True, dtype=np.float32)
    pale = x + np.float32(whitening) * (np.maximum(x, grey * np.float32(1.5) + np.float32(0.5)) - x)
    return pale + np.float32(1.5) * fallen


def frost(x: np.ndarray, draws: Draws, thickness: float) -> np.ndarray:
    """Ice whose crystals follow the ridges of random clouds."""
    ridges = 1 - np.abs(2 * _clouds(draws, x.shape[-1], 1.6) - 1)
    crystals = ridges * ridges * ridges
    cover = np.minimum(np.float32(thickness) * (np.float32(0.4) + crystals), 1)
    return x + cover * ((np.float32(0.5) + np.float32(0.5) * crystals) * ICE - x)


def fog(x: np.ndarray, draws: Draws, thickness: float, fading: float) -> np.ndarray:
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    mist = np.float32(thickness) * (np.float32(0.5) + np.float32(0.5) * _clouds(draws, x.shape[-1], fading))
    return (x + mist) * brightest / (brightest + np.float32(thickness))


def brightness(x: np.ndarray, draws: Draws, added: float) -> np.ndarray:
    """More of the value in the colour space of hue, saturation and value."""
    value = x.max(axis=1, keepdims=True)
    brighter = np.minimum(value + np.float32(added), 1)
    return np.where(value > 0, x * brighter / np.maximum(value, np.float32(1e-6)), brighter)


def contrast(x: np.ndarray, draws: Draws, left: float) -> np.ndarray:
    """Every channel nearer to its mean, which is computed from whole numbers."""
    sums = np.rint(x * np.float32(255)).astype(np.int64).sum(axis=(2, 3), keepdims=True)
    means = (sums / (255 * x.shape[2] * x.shape[3])).astype(np.float32)
    return (x - means) * np.float32(left) + means


def elastic_transform(x: np.ndarray, draws: Draws, deviation: float, distance: float) -> np.ndarray:
    side = x.shape[-1]
    shifts = np.stack([draw.standard_normal((2, side, side), dtype=np.float32) for draw in draws])
    shifts = ndimage.gaussian_filter(shifts, (0, 0, distance * side, distance * side))
    shifts *= np.float32(deviation * side * 2 * math.sqrt(math.pi) * distance * side)  # of white noise, blurred
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    places = np.clip(grid.astype(np.float32) + shifts, 0, side - 1)
    low = np.minimum(places.astype(int), side - 2)
    (down, right), (rows, columns) = (places - low).swapaxes(0, 1)[:, :, None], low.swapaxes(0, 1)
    above = _gathered(x, rows, columns) * (1 - right) + _gathered(x, rows, columns + 1) * right
    below = _gathered(x, rows + 1, columns) * (1 - right) + _gathered(x, rows + 1, columns + 1) * right
    return above * (1 - down) + below * down


def pixelate(x: np.ndarray, draws: Draws, left: float) -> np.ndarray:
    side = x.shape[-1]
    few = max(1, round(side * left))

    def coarse(picture: Image.Image) -> Image.Image:
        return picture.resize((few, few), Image.Resampling.BOX).resize((side, side), Image.Resampling.NEAREST)

    return _by_pillow(x, coarse)


def jpeg_compression(x: np.ndarray, draws: Draws, quality: float) -> np.ndarray:
    def compressed(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "jpeg", quality=round(quality))
        return Image.open(buffer)

    return _by_pillow(x, compressed)


def _by_pillow(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    pixels = np.rint(x * np.float32(255)).astype(np.uint8).transpose(0, 2, 3, 1)
    changed = np.stack([np.asarray(change(Image.fromarray(picture))) for picture in pixels])
    return changed.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Pictures (..., H, W) convolved with a kernel of odd sides, whose weights are divided by their sum; the border is reflected."""
    reach, (height, width) = [side // 2 for side in kernel.shape], x.shape[-2:]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(by, by) for by in reach], mode="symmetric")
    total = np.zeros_like(x)
    for row, column in np.argwhere(kernel > 0):
        weight = np.float32(kernel[row, column] / kernel.sum())
        total += weight * padded[..., row : row + height, column : column + width]
    return total


def _streaked(x: np.ndarray, angles: Sequence[float], length: float) -> np.ndarray:
    """Every picture of (N, C, H, W) moved along a line of `length` pixels at its own angle."""
    reach = math.ceil(length / 2)
    blurred = np.empty_like(x)
    for index, angle in enumerate(angles):
        kernel = np.zeros((2 * reach + 3, 2 * reach + 3))
        for place in np.linspace(-length / 2, length / 2, 4 * reach + 1):
            row, column = reach + 1 + place * math.sin(angle), reach + 1 + place * math.cos(angle)
            top, left = int(row), int(column)
            down, right = row - top, column - left
            kernel[top : top + 2, left : left + 2] += np.outer((1 - down, down), (1 - right, right))
        blurred[index] = _convolved(x[index], kernel)
    return blurred


def _stretched(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Pictures (..., H, H) at the same fractional places of rows and columns, linearly interpolated."""
    low = np.minimum(places.astype(int), x.shape[-1] - 2)
    part = (places - low).astype(np.float32)
    x = x[..., low, :] * (1 - part)[:, None] + x[..., low + 1, :] * part[:, None]
    return x[..., low] * (1 - part) + x[..., low + 1] * part


def _gathered(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The pixels of (N, C, H, W) at rows and columns (N, H, W)."""
    flat = (rows * x.shape[-1] + columns).reshape(len(x), 1, -1)
    return np.take_along_axis(x.reshape(*x.shape[:2], -1), flat, axis=2).reshape(x.shape)


def _clouds(draws: Draws, side: int, fading: float) -> np.ndarray:
    """Random structures of all sizes, float32 (N, 1, side, side), each size `fading` times weaker than its double.

    The values of a picture are evenly distributed from 0 to 1, so all pictures get as much fog, or ice.
    """
    total = np.zeros((len(draws), 1, side, side), dtype=np.float32)
    for octave in range(1, math.ceil(math.log2(side)) + 1):
        points = 2**octave + 1
        noise = np.stack([draw.random((1, points, points), dtype=np.float32) for draw in draws])
        places = np.linspace(0, points - 1, side, endpoint=False)
        whole = np.floor(places)
        eased = (places - whole) ** 2 * (3 - 2 * (places - whole))  # no edges along the grid
        total += _stretched(noise, whole + eased) * np.float32(fading ** (1 - octave))
    flat = total.reshape(len(draws), -1)
    ranked = np.empty_like(flat)
    ranks = np.linspace(0, 1, flat.shape[1], dtype=np.float32)[None]
    np.put_along_axis(ranked, flat.argsort(axis=1, kind="stable"), ranks, axis=1)
    return ranked.reshape(total.shape)


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
}
