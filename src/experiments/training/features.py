"""Frozen features: what a frozen backbone computes of every image, computed in one pass and kept on disk.

cut, not_cut = find_cut(config, model, autocast)           # where the network is cut in two, or why it is not
features = frozen_features(config, cut.backbone(model), splits, device, autocast, advance)
logits = cut.head(model)(torch.from_numpy(features.splits.train.take(indices)))

The backbone computes in evaluation mode and with batches of the size that evaluations have, so an evaluation of features
has the logits of the whole network.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from experiments.config import Config
from experiments.data import Images, Splits
from experiments.data.images import Batch
from experiments.data.pixels import Pixels, images_per_chunk
from experiments.files.cache import Cached, cached
from experiments.files.verified import Chunks
from experiments.models import freezing
from experiments.models.classifier import Classifier
from experiments.models.cutting import Cut, computes_the_same, cut_at_head, noise
from experiments.training.evaluation import batch_size


def unchanged(batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
    """In place of an augmentation: features are not augmented."""
    return batch.pixels, batch.labels


def find_cut(config: Config, model: Classifier, autocast: torch.autocast) -> tuple[Cut | None, str]:
    """(where to cut the network, "") if all before the head is frozen and an image has the same features in every epoch.

    Else (None, reason); the reason is empty if the backbone is not frozen in all epochs.
    """
    if not stay_frozen(config):
        return None, ""
    if changing := _changing(config):
        return None, changing
    cut = cut_at_head(model)
    if cut is None or not computes_the_same(model, cut, autocast, config.data.image_shape):
        return None, "the network cannot be cut at its head"
    return cut, ""


def stay_frozen(config: Config) -> bool:
    """Whether all before the head is frozen in all epochs."""
    return config.training.freeze == freezing.BACKBONE and not config.training.unfreeze_epoch


def may_be_cut(config: Config) -> bool:
    """Whether the settings allow it to train on frozen features, whose sums are not rounded as those of the whole network."""
    return stay_frozen(config) and not _changing(config)


def _changing(config: Config) -> str:
    """The first setting with which an image has other features in another epoch, or an evaluation needs more of them."""
    training = config.training
    found = {f"augment.{key}": value for key, value in config.augment.active.items()}
    found |= {"training.image_sizes": list(training.image_sizes)} if training.image_sizes else {}
    found |= {"evaluation.tta": config.evaluation.tta} if config.evaluation.note else {}
    return next((f"{key}={value} is set" for key, value in found.items()), "")


@dataclass(frozen=True)
class Features:
    """The features of all splits.

    Attributes:
        splits: in place of the pixels of an image, they have its features: float32 (N, ...).
        images: how many different images there are in the splits.
        nbytes: of their features.
        seconds: of computing them; None if they were computed before.
    """

    splits: Splits
    images: int
    nbytes: int
    seconds: float | None


def cache_folder(config: Config) -> Path:
    """Where features are kept."""
    return Path(config.outputs) / "cache"


def frozen_features(
    config: Config,
    backbone: Classifier,
    splits: Splits,
    device: torch.device,
    autocast: torch.autocast,
    advance: Callable[[int], None],
) -> Features:
    """The features of all images, from the cache; computed before, if they are not there.

    They are kept by the pixels of the images, whatever the splits: another seed or fold has the same ones.

    Args:
        advance: called with the number of images, after each batch.
    """
    parts = list(splits.parts().values())
    hashes = np.concatenate([part.pixel_hashes() for part in parts])
    distinct, first, rows = np.unique(hashes, return_index=True, return_inverse=True)
    size = batch_size(splits.image_shape, device.type)
    compute = _Compute(backbone, size, device, autocast)
    probe = compute(noise(splits.image_shape, device))
    width, layout = probe[0].nbytes, _layout(probe)
    key = (
        "features", _sha256(distinct), splits.image_shape, _digest(backbone), _sha256(probe), layout,
        config.precision, device.type,
    )  # fmt: skip
    started: list[float] = []

    def make() -> tuple[Chunks]:
        started.append(time.perf_counter())
        batches = (first[start : start + size] for start in range(0, len(first), size))
        return (Chunks((len(first), width), _computed(compute, parts, batches, layout, advance)),)

    (kept,) = cached(str(cache_folder(config)), key, ("features",), make)
    source = FeatureRows(kept, probe.shape[1:], layout)
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    images = [Images(source, part.labels, part.classes, own) for part, own in zip(parts, np.split(rows, bounds))]
    seconds = time.perf_counter() - started[0] if started else None
    return Features(Splits(*images), len(distinct), len(distinct) * width, seconds)


@dataclass(frozen=True)
class _Compute:
    """Images (batch, 3, H, W) to features, float32; every batch is padded to the same size, as in an evaluation."""

    backbone: Classifier
    size: int
    device: torch.device
    autocast: torch.autocast

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> np.ndarray:
        parts = []
        with self.autocast:
            for part in pixels.to(self.device).split(self.size):
                full = functional.pad(part, (0,) * 7 + (self.size - len(part),))
                parts.append(self.backbone(full).float()[: len(part)])
        return torch.cat(parts).cpu().numpy()


def _layout(features: np.ndarray) -> tuple[int, ...]:
    """The dimensions of an array in the order in which it is in memory: of channels-last (0, 2, 3, 1).

    Features keep it, because dropout draws its random numbers in this order, and a convolution need not copy them.
    """
    order = tuple(int(axis) for axis in np.argsort([-stride for stride in features.strides], kind="stable"))
    return order if order[0] == 0 else tuple(range(features.ndim))


def _computed(
    compute: _Compute,
    parts: Sequence[Images],
    batches: Iterator[np.ndarray],
    layout: Sequence[int],
    advance: Callable[[int], None],
) -> Iterator[np.ndarray]:
    """The features of the images at `batches`, which count through all parts, as bytes."""
    starts = np.cumsum([0, *map(len, parts)])
    for positions in batches:
        pixels = np.empty((len(positions), *parts[0].shape[1:]), dtype=np.uint8)
        for part, start in zip(parts, starts):
            own = (positions >= start) & (positions < start + len(part))
            if own.any():
                pixels[own] = part.take(positions[own] - start)
        features = compute(torch.from_numpy(pixels)).transpose(layout)
        yield np.ascontiguousarray(features).reshape(len(positions), -1).view(np.uint8)
        advance(len(positions))


def _digest(backbone: Classifier) -> str:
    """SHA-256 over the layers and weights of the backbone."""
    digest = hashlib.sha256(str(backbone.network).encode())
    for tensor in backbone.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


class FeatureRows(Pixels):
    """Features in place of pixels: float32, kept as rows of bytes in the order of `layout`, see `_layout`."""

    def __init__(self, rows: Cached, shape: tuple[int, ...], layout: Sequence[int]) -> None:
        self._cached, self.files = rows, None
        self._shape = shape
        self._layout = tuple(layout)

    @property
    def image_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of the features of one image."""
        return self._shape

    @property
    def chunk_size(self) -> int:
        return images_per_chunk(self.array.shape[1:])

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the features of the images at `indices`, float32 (len(indices), ...)."""
        shape = (len(indices), *self._shape)
        stored = super().take(indices).view(np.float32).reshape([shape[axis] for axis in self._layout])
        return stored.transpose(np.argsort(self._layout))
