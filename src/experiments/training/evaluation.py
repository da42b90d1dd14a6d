"""Evaluation of a model on a set of images: exact sums over all examples, divided once."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.config import VIEWS
from experiments.config.metrics import EVALUATED
from experiments.data import Images
from experiments.data.batches import Batches
from experiments.training.ranks import OneProcess, Ranks

ALONE = OneProcess()


def batch_size(image_shape: tuple[int, ...], device_type: str = "cpu") -> int:
    """Images per batch outside of training, fewer large ones: 250 of 32x32 on a CPU, whose caches do not hold more, 2,000 on a GPU."""
    most = 250 if device_type == "cpu" else 2000
    return max(1, min(most, most * 32 * 32 // (image_shape[-1] * image_shape[-2])))


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and confusion matrix; all other metrics are computed from them.

    Attributes:
        loss: mean cross-entropy over all examples, in nats.
        confusion: int64, shape (classes, classes); row: true class, column: predicted class.
    """

    loss: float
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy."""
        return wilson_interval(int(np.trace(self.confusion)), int(self.confusion.sum()))

    @property
    def support(self) -> np.ndarray:
        """Examples per class, shape (classes,)."""
        return self.confusion.sum(axis=1)

    @property
    def recall(self) -> np.ndarray:
        """Per true class, the fraction that was predicted as such, shape (classes,); 0 for a class without examples."""
        return np.diag(self.confusion) / np.maximum(self.support, 1)

    @property
    def precision(self) -> np.ndarray:
        """Per predicted class, the fraction that was correct, shape (classes,); 0 for a class that was never predicted."""
        return np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=0), 1)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, shape (classes,)."""
        return 2 * np.diag(self.confusion) / np.maximum(self.support + self.confusion.sum(axis=0), 1)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes with examples (a new class of extra images has none in an official test set).

        scikit-learn's "macro avg" is another number if there is a class without examples, see `report`.
        """
        return float(self.f1[self.support > 0].mean())

    def metrics(self, split: str, classes: Sequence[str]) -> dict[str, float]:
        """The final metrics of a split by their names in MLflow; a class without examples has no F1."""
        f1 = {f"{split}/f1/{name}": float(f1) for name, f1, n in zip(classes, self.f1, self.support) if n}
        return {f"{split}/{name}": getattr(self, name) for name in EVALUATED} | f1

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """(true class, predicted class, examples) of the most frequent mistakes: at most `count`, each with an example."""
        mistakes = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        pairs = (np.unravel_index(cell, mistakes.shape) for cell in order)
        return [
            (int(true), int(predicted), int(mistakes[true, predicted]))
            for true, predicted in pairs
            if mistakes[true, predicted]
        ]

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """The same as scikit-learn's `classification_report(output_dict=True)`, whose import takes seconds, and `macro_f1`.

        "macro avg" is the mean over all classes, also those without examples, whose F1 is 0; `macro_f1` leaves these out.
        A class that is named like a row of the summary has "class " before its name.
        """
        table = np.stack([self.precision, self.recall, self.f1], axis=1)
        weights = self.support / self.support.sum()
        total = self.support.sum()
        summary = {"macro avg": (*table.mean(axis=0), total), "weighted avg": (*weights @ table, total)}
        numbers = {"accuracy": self.accuracy, "macro_f1": self.macro_f1}
        names = _distinct(classes, {*summary, *numbers})
        rows = {name: (*values, n) for name, values, n in zip(names, table, self.support)} | summary
        keys = ("precision", "recall", "f1-score", "support")
        report = {name: dict(zip(keys, map(float, values))) for name, values in rows.items()}
        return {**report, **numbers}


def _distinct(names: Sequence[str], reserved: Set[str]) -> list[str]:
    """Names of classes, with "class " before those that are reserved: so often that all names differ."""
    taken, distinct = {*reserved, *names}, []
    for name in names:
        if name in reserved:
            while name in taken:
                name = f"class {name}"
            taken.add(name)
        distinct.append(name)
    return distinct


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, autocast: torch.autocast, tta: str = "none") -> Tensor:
    """Logits of every image, float32 (N, classes), in evaluation mode; the model's mode is restored.

    Every batch is padded to the same size, because matrix kernels round differently for a few rows: an image gets the
    same logits, to the last bit, alone and among others.

    The logits are written into one tensor: small ones that stay, between large ones that come and go, would let the memory
    of the process grow with every batch (by 1.5 GB for 3,200 images of 224 pixels).

    Args:
        tta: the views of an image whose logits are averaged, a key of `VIEWS`.
    """
    training = model.training
    model.eval()
    logits, start = torch.empty(0), 0
    try:
        with autocast:
            for pixels, _, _ in batches:
                full = functional.pad(pixels, (0,) * (2 * pixels.ndim - 1) + (batches.batch_size - len(pixels),))
                weighted = torch.stack([weight * model(view).float() for weight, view in views(full, tta)])
                means = weighted.sum(dim=0)[: len(pixels)]
                if not start:
                    logits = means.new_empty((len(batches.images), means.shape[1]))
                logits[start : start + len(pixels)] = means
                start += len(pixels)
    finally:
        model.train(training)
    return logits


def views(pixels: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """(weight, images (batch, 3, H, W)) of every view in `VIEWS[tta]`; the weights add up to 1."""
    shifted = {by: _shifted(_shifted(pixels, 2, by), 3, by) for by in {by for _, by, _ in VIEWS[tta]}}
    return [(weight, shifted[by].flip(3) if mirrored else shifted[by]) for weight, by, mirrored in VIEWS[tta]]


def _shifted(pixels: Tensor, dim: int, by: int) -> Tensor:
    """Moved by -1, 0 or 1 pixel along a dimension; the pixels beyond the border are its reflection."""
    if by == 0:
        return pixels
    length = pixels.shape[dim]
    if by < 0:
        return torch.cat([pixels.narrow(dim, 1, length - 1), pixels.narrow(dim, length - 2, 1)], dim)
    return torch.cat([pixels.narrow(dim, 1, 1), pixels.narrow(dim, 0, length - 1)], dim)


def evaluate_images(
    model: nn.Module,
    images: Images,
    device: torch.device,
    autocast: torch.autocast,
    tta: str,
    size: int | None = None,
    ranks: OneProcess | Ranks = ALONE,
) -> tuple[Evaluation, Tensor]:
    """(evaluation, logits float32 (N, classes) on the CPU) of a model on images, `size` at a time.

    A GPU does not keep the images, because they are read once.
    """
    streamed = None if device.type == "cpu" else True
    part = Batches(ranks.part(images), size or batch_size(images.shape, device.type), device, streamed=streamed)
    logits = ranks.gathered(predict(model, part, autocast, tta), len(images))
    return score(logits, torch.tensor(images.labels, device=device)), logits.cpu()


def evaluate(
    model: nn.Module,
    batches: Batches,
    autocast: torch.autocast,
    tta: str = "none",
    ranks: OneProcess | Ranks = ALONE,
) -> Evaluation:
    """Evaluate a model on `batches` in one pass, with one synchronisation at the end; each of `ranks` has a part of the images."""
    return score(predict(model, batches, autocast, tta), batches.labels, ranks)


def score(logits: Tensor, labels: Tensor, ranks: OneProcess | Ranks = ALONE) -> Evaluation:
    """The evaluation of logits (N, classes) against the true labels (N,), and of those of the other `ranks`."""
    classes = logits.shape[1]
    losses = functional.cross_entropy(logits, labels, reduction="none")
    confusion = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes * classes)
    loss = ranks.mean(losses.cpu().double())
    return Evaluation(loss, ranks.sum(confusion).view(classes, classes).cpu().numpy())


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of the fraction right / total (Wilson, 1927)."""
    z = 1.959964
    fraction, spread = right / total, z * z / total
    middle = (fraction + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (fraction * (1 - fraction) / total + spread / (4 * total)) ** 0.5
    return middle - half, middle + half
