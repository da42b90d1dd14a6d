"""How good a model is on a set of images: exact sums over every example, divided once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.data.batches import Batches


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
def evaluate(model: nn.Module, batches: Batches, autocast: torch.autocast) -> Evaluation:
    """One pass over `batches` in evaluation mode; the model's mode is restored. One synchronisation, at the end."""
    classes = len(batches.classes)
    loss = torch.zeros(
        (), dtype=torch.float64 if batches.device.type != "mps" else torch.float32, device=batches.device
    )
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=batches.device)
    training = model.training
    model.eval()
    try:
        for pixels, labels in batches:
            with autocast:
                logits = model(pixels)
            loss += functional.cross_entropy(logits.float(), labels, reduction="sum")
            confusion += torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes * classes)
    finally:
        model.train(training)
    matrix = confusion.view(classes, classes).cpu().numpy()
    return Evaluation(loss.item() / len(batches.images), matrix)
