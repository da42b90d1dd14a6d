"""Random changes of training images: for a batch at once, on its device, drawn anew for every image.

augmentation = Augmentation(config.augment, classes=10)
images, targets = augmentation(batch, epoch)

Random numbers come from torch's generator of the CPU, see `draws`, and are drawn only for what is switched on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from experiments.config import AugmentSettings
from experiments.data.augmentation import colour, geometry, mixing
from experiments.data.augmentation.draws import Draws
from experiments.data.images import Batch, Images
from experiments.data.rows import Rows

if TYPE_CHECKING:
    from experiments.data.crops import RandomCrops


class Augmentation:
    """Geometry, then colour, then cutout, then mixing, as far as `settings` switch them on.

    Args:
        rows: of each batch, the only ones of which there are pixels; None: all.
    """

    def __init__(self, settings: AugmentSettings, classes: int, rows: Rows | None = None) -> None:
        self.settings = settings
        self.classes = classes
        self.rows = rows

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """The augmented batch.

        Returns:
            images: as many as there are pixels of, (batch, 3, H, W), uint8, or float32 from 0 to 255 after an interpolation or a change of colour.
            targets: the labels of the whole batch, int64 (batch,); with mixup or CutMix class fractions, float32 (batch, classes).
        """
        settings, targets = self.settings, batch.labels
        rows = self.rows.indices(len(targets)) if self.rows else None
        draws = Draws(len(targets), batch.pixels.device, rows)
        size = min(batch.pixels.shape[2:])
        reach, side = min(in_pixels(settings.translate, size), size - 1), in_pixels(settings.cutout, size)
        images = geometry.move(batch.pixels, geometry.draw(settings, batch.indices, epoch, reach, draws))
        images = colour.jitter(images, settings, draws)
        height, width = images.shape[2:]
        if side:
            images = mixing.cutout(images, mixing.draw_centres(draws, height, width), side)
        if settings.mixes:
            drawn = mixing.draw_mix(settings.mixup, settings.cutmix, draws, height, width)
            images, targets = mixing.mix(images, drawn), mixing.mix_labels(targets, self.classes, drawn)
        return images, targets


def random_crops(settings: AugmentSettings, images: Images) -> RandomCrops | None:
    """The crops of photographs that `settings` switch on, which take the place of the images."""
    if not settings.crop_scale:
        return None
    from experiments.data.crops import RandomCrops  # imports torchvision, which takes a second

    return RandomCrops(images, settings.crop_scale, settings.crop_ratio)


def in_pixels(length: int | float, size: int) -> int:
    """A length in pixels: a whole number is one already; a share of `size` pixels is at least one, unless it is 0."""
    if isinstance(length, int):
        return length
    return max(1, round(length * size)) if length else 0


def examples(settings: AugmentSettings, images: Images, count: int = 10, epochs: int = 3) -> np.ndarray:
    """Images spread over all of `images`, as they are and as each of the first epochs might show them.

    The random state is left unchanged.

    Returns:
        uint8 (1 + epochs, count, 3, H, W); fewer if there are fewer images.
    """
    indices = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    batch = Batch(*(torch.from_numpy(array) for array in (images.take(indices), images.labels[indices], indices)))
    augmentation, crops = Augmentation(settings, len(images.classes)), random_crops(settings, images)

    def augmented(epoch: int) -> Tensor:
        pixels = batch.pixels
        if crops:
            cut = map(crops.cut, images.indices[indices].tolist(), crops.draw(len(indices)))
            pixels = torch.from_numpy(np.stack(list(cut)))
        return augmentation(batch._replace(pixels=pixels), epoch)[0]

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed a GPU's generator
        shown = [batch.pixels, *map(augmented, range(1, epochs + 1))]
    return torch.stack([images.float().round().to(torch.uint8) for images in shown]).numpy()
