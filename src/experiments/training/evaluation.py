"""How good a model is on a set of images: exact sums over every example, divided once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.data import Images
from experiments.data.batches import Batches


def batch_size(image_shape: tuple[int, ...]) -> int:
    """Pictures a batch when nothing is learned: 250 of 32x32 (more leave a CPU's caches, and are slower), fewer large ones."""
    return max(1, min(250, 250 * 32 * 32 // (image_shape[-1] * image_shape[-2])))


@dataclass(frozen=True)
class Evaluation:
    """Mean loss (nats) and confusion matrix; everything else follows from them.

    Attributes:
        loss: cross-entropy, the mean over all examples.
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
        """Examples a class, shape (classes,)."""
        return self.confusion.sum(axis=1)

    @property
    def recall(self) -> np.ndarray:
        """Share of each true class that was found, shape (classes,); 0 for a class without examples."""
        return np.diag(self.confusion) / np.maximum(self.support, 1)

    @property
    def precision(self) -> np.ndarray:
        """Share of each predicted class that was right, shape (classes,); 0 for a class that was never predicted."""
        return np.diag(self.confusion) / np.maximum(self.confusion.sum(axis=0), 1)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, shape (classes,)."""
        return 2 * np.diag(self.confusion) / np.maximum(self.support + self.confusion.sum(axis=0), 1)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have examples (one's own new class has none in the official test set)."""
        return float(self.f1[self.support > 0].mean())

    def metrics(self, split: str, classes: Sequence[str]) -> dict[str, float]:
        """The final metrics about a split, by their names in MLflow; a class without examples has no F1."""
        f1 = {f"{split}/f1/{name}": float(f1) for name, f1, n in zip(classes, self.f1, self.support) if n}
        return {
            f"{split}/loss": self.loss,
            f"{split}/accuracy": self.accuracy,
            f"{split}/macro_f1": self.macro_f1,
            **f1,
        }

    def most_confused(self, count: int) -> list[tuple[int, int, int]]:
        """(true class, predicted class, examples) of the most frequent mistakes, at most `count`, none with 0."""
        mistakes = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
        pairs = (np.unravel_index(cell, mistakes.shape) for cell in order)
        return [(int(true), int(said), int(mistakes[true, said])) for true, said in pairs if mistakes[true, said]]

    def report(self, classes: Sequence[str]) -> dict[str, Any]:
        """What scikit-learn's `classification_report(output_dict=True)` gives, without the seconds of its import."""
        table = np.stack([self.precision, self.recall, self.f1], axis=1)
        weights = self.support / self.support.sum()
        rows = {name: (*values, n) for name, values, n in zip(classes, table, self.support)}
        total = self.support.sum()
        rows |= {"macro avg": (*table.mean(axis=0), total), "weighted avg": (*weights @ table, total)}
        keys = ("precision", "recall", "f1-score", "support")
        report = {name: dict(zip(keys, map(float, values))) for name, values in rows.items()}
        return {**report, "accuracy": self.accuracy}


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, autocast: torch.autocast, tta: str = "none") -> Tensor:
    """Logits of every image, float32 (N, classes), in evaluation mode; the model's mode is restored.

    Every batch is filled up to the same size, because matrix kernels round differently for a handful of rows: so a
    picture gets the same answer, to the last bit, alone and among others.

    Args:
        tta: the views of a picture whose logits are averaged, see `views`.
    """
    training = model.training
    model.eval()
    logits = []
    try:
        with autocast:
            for pixels, _, _ in batches:
                full = functional.pad(pixels, (0,) * 7 + (batches.batch_size - len(pixels),))
                answers = torch.stack([share * model(view).float() for share, view in views(full, tta)])
                logits.append(answers.sum(dim=0)[: len(pixels)])
    finally:
        model.train(training)
    return torch.cat(logits)


def views(pixels: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """(weight, pictures (batch, 3, H, W)) of every view; the weights add up to 1.

    Test-time augmentation as in Jordan, 2024 (https://arxiv.org/abs/2404.00498): `flip` is the picture and its mirror
    image; `flip_shift` gives these two half of the weight, and the other half to the picture moved by one pixel up and
    left, and down and right (the border is reflected), and the mirror images of both.
    """
    if tta == "none":
        return [(1.0, pixels)]
    upright = [(1.0, pixels)]
    if tta == "flip_shift":
        upright = [(0.5, pixels), *((0.25, _moved(_moved(pixels, 2, by), 3, by)) for by in (-1, 1))]
    return [(share / 2, view) for share, picture in upright for view in (picture, picture.flip(3))]


def _moved(pixels: Tensor, side: int, by: int) -> Tensor:
    """By one pixel along a side; the pixel that comes in at the border is the last but one there, as if it was reflected."""
    length = pixels.shape[side]
    if by < 0:
        return torch.cat([pixels.narrow(side, 1, length - 1), pixels.narrow(side, length - 2, 1)], side)
    return torch.cat([pixels.narrow(side, 1, 1), pixels.narrow(side, 0, length - 1)], side)


def evaluate_images(
    model: nn.Module, images: Images, device: torch.device, autocast: torch.autocast, tta: str
) -> tuple[Evaluation, np.ndarray]:
    """(evaluation, class probabilities, float32 (N, classes)) of a model on images."""
    batches = Batches(images, batch_size(images.shape), device)
    logits = predict(model, batches, autocast, tta)
    return score(logits, batches.labels), logits.softmax(dim=1).cpu().numpy()


def evaluate(model: nn.Module, batches: Batches, autocast: torch.autocast, tta: str = "none") -> Evaluation:
    """One pass over `batches`; one synchronisation, at the end."""
    return score(predict(model, batches, autocast, tta), batches.labels)


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """What logits (N, classes) are worth against the true labels (N,)."""
    classes = logits.shape[1]
    losses = functional.cross_entropy(logits, labels, reduction="none")
    confusion = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes * classes)
    return Evaluation(losses.cpu().double().mean().item(), confusion.view(classes, classes).cpu().numpy())


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson, 1927)."""
    z = 1.959964
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / total + spread / (4 * total)) ** 0.5
    return middle - half, middle + half
