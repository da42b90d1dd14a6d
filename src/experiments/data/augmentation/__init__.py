"""Random changes of training pictures: a batch at a time, on its device, drawn for every picture anew.

augmentation = Augmentation(config.augment, classes=10)
pictures, targets = augmentation(batch, epoch)

Random numbers come from torch's generator of the device, and only for what is switched on.
"""

import numpy as np
import torch
from torch import Tensor

from experiments import config
from experiments.data.augmentation import colour, geometry, mixing
from experiments.data.images import Batch, Images


class Augmentation:
    """Geometry, then colour, then cutout, then mixing, each as far as `settings` switch it on."""

    def __init__(self, settings: config.AugmentSettings, classes: int) -> None:
        self.settings = settings
        self.classes = classes

    def __call__(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """The batch changed: pictures, and what the network should say of them.

        Returns:
            pictures: (batch, 3, H, W), uint8, or float32 from 0 to 255 where there is something to interpolate or blend.
            targets: the labels int64 (batch,), or with mixup or CutMix class shares float32 (batch, classes).
        """
        settings, targets = self.settings, batch.labels
        pictures = geometry.move(batch.pixels, geometry.draw(settings, batch.rows, epoch))
        pictures = colour.jitter(pictures, settings)
        shape, device = pictures.shape, pictures.device
        if settings.cutout:
            pictures = mixing.cutout(pictures, mixing.draw_centres(shape, device), settings.cutout)
        if settings.mixup or settings.cutmix:
            drawn = mixing.draw_mix(settings.mixup, settings.cutmix, shape, device)
            pictures, targets = mixing.mix(pictures, drawn), mixing.mix_labels(targets, self.classes, drawn)
        return pictures, targets


def examples(settings: config.AugmentSettings, images: Images, count: int = 10, epochs: int = 3) -> np.ndarray:
    """Pictures from all over `images`, as they are and as each of the first epochs might show them.

    The random state is left as it was.

    Returns:
        uint8 (1 + epochs, count, 3, H, W); fewer where there are fewer images.
    """
    rows = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    batch = Batch(*(torch.from_numpy(array) for array in (images[rows].pixels, images.labels[rows], rows)))
    augmentation = Augmentation(settings, len(images.classes))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a GPU's too
        shown = [batch.pixels, *(augmentation(batch, epoch)[0] for epoch in range(1, epochs + 1))]
    return torch.stack([pictures.float().round().to(torch.uint8) for pictures in shown]).numpy()
