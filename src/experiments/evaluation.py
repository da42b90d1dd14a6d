"""How good a model is on a set of images: exact sums over every example, divided once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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
def predict(model: nn.Module, batches: Batches, autocast: torch.autocast) -> Tensor:
    """Logits of every image, float32 (N, classes), in evaluation mode; the model's mode is restored.

    Every batch is filled up to the same size, because matrix kernels round differently for a handful of rows: so a
    picture gets the same answer, to the last bit, alone and among others.
    """
    training = model.training
    model.eval()
    try:
        with autocast:
            logits = [
                model(functional.pad(pixels, (0,) * 7 + (batches.batch_size - len(pixels),)))[: len(pixels)].float()
                for pixels, _, _ in batches
            ]
    finally:
        model.train(training)
    return torch.cat(logits)


def evaluate(model: nn.Module, batches: Batches, autocast: torch.autocast) -> Evaluation:
    """One pass over `batches`; one synchronisation, at the end."""
    return score(predict(model, batches, autocast), batches.labels)


def score(logits: Tensor, labels: Tensor) -> Evaluation:
    """What logits (N, classes) are worth against the true labels (N,)."""
    classes = logits.shape[1]
    losses = functional.cross_entropy(logits, labels, reduction="none")
    confusion = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes * classes)
    return Evaluation(losses.cpu().double().mean().item(), confusion.view(classes, classes).cpu().numpy())


def test_metrics(test: Evaluation, classes: Sequence[str]) -> dict[str, float]:
    """The metrics of a test, by the names that they have in MLflow; a class without examples has none."""
    return {
        "test/loss": test.loss,
        "test/accuracy": test.accuracy,
        "test/macro_f1": test.macro_f1,
        **{f"test/f1/{name}": float(f1) for name, f1, n in zip(classes, test.f1, test.support) if n},
    }
