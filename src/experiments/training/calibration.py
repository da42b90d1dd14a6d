"""Calibration: how well predicted probabilities match the observed accuracy, and temperature scaling, which improves it.

temperature = fit_temperature(logits, labels)               # of the validation images
probabilities = (logits / temperature).softmax(dim=1)

Dividing all logits by one number changes no predicted class, only how confident the predictions are.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from experiments.training.coverage import Coverage

if TYPE_CHECKING:
    from experiments.training.learner import Learner

BINS = 15  # as in Guo et al., 2017
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
SPREAD = 0.5  # standard deviation of the prior of 1 / temperature
STEPS = 40  # of the bisection: the temperature is known to 11 digits
SIGNIFICANT = 3.84  # the 95 % quantile of chi-squared with one degree of freedom


def fit_temperature(logits: Tensor, labels: np.ndarray) -> float:
    """The temperature with the smallest mean cross-entropy, from `LOWEST` to `HIGHEST` (Guo et al., 2017, arXiv:1706.04599).

    If all predictions are right, it would be 0, and with few images it depends on chance. So 1 / temperature has a normal prior
    around 1: it counts as much as one image, and keeps the temperature near 1 if there are few. On these images the
    cross-entropy is never larger than with temperature 1. It is convex in 1 / temperature, so bisection finds where its slope
    is 0. If the gain is not significant (likelihood ratio test, 95 %), the temperature is 1: a gain by chance is not one on
    other images.

    Args:
        logits: (N, classes), on any device.
        labels: (N,).

    Returns:
        1 if the logits are not finite, or no other temperature is significantly better.
    """
    logits, truth = logits.cpu().double(), torch.tensor(labels)
    if not logits.isfinite().all():
        return 1.0
    logits = logits - logits.mean(dim=1, keepdim=True)
    right = logits.gather(1, truth[:, None]).mean().item()

    def slope(inverse: float) -> float:
        expected = ((logits * inverse).softmax(dim=1) * logits).sum(dim=1).mean().item()
        return expected - right + (inverse - 1) / (SPREAD**2 * len(labels))

    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    before, after = (functional.cross_entropy(logits * inverse, truth, reduction="sum").item() for inverse in (1, high))
    return 1 / high if 2 * (before - after) > SIGNIFICANT else 1.0


@dataclass(frozen=True)
class Scores:
    """How good probabilities are; smaller is better.

    Attributes:
        loss: mean cross-entropy (negative log-likelihood), in nats.
        ece: expected calibration error: the mean distance of confidence and accuracy in `BINS` intervals of confidence.
        brier: mean squared distance of the probabilities from 1 for the true class and 0 for the others, summed over the classes.
    """

    loss: float
    ece: float
    brier: float

    @classmethod
    def of(cls, logits: Tensor, labels: np.ndarray) -> Scores:
        """The scores of logits (N, classes), on the CPU."""
        shares = logits.softmax(dim=1)
        truth = torch.tensor(labels)
        loss = functional.cross_entropy(logits, truth, reduction="none").double().mean().item()
        distances = (shares.double() - functional.one_hot(truth, shares.shape[1])).square().sum(dim=1)
        return cls(loss, calibration_error(shares.numpy(), labels), distances.mean().item())


@dataclass(frozen=True)
class Calibration:
    """Predictions before and after their logits are divided by the temperature.

    Attributes:
        logits: not divided, (N, classes), on the CPU.
        labels: the true classes, (N,).
        validation: accuracy at coverage of the images that the temperature was fitted to; None if they are not at hand.
    """

    temperature: float
    logits: Tensor
    labels: np.ndarray
    validation: Coverage | None = None

    @functools.cached_property
    def before(self) -> Scores:
        return Scores.of(self.logits, self.labels)

    @functools.cached_property
    def after(self) -> Scores:
        return Scores.of(self.logits / self.temperature, self.labels)

    @property
    def uncalibrated(self) -> np.ndarray:
        """The probabilities before, (N, classes)."""
        return probabilities(self.logits)

    def metrics(self, prefix: str) -> dict[str, float]:
        """By their names in MLflow, such as test/ece; the loss before is the loss of the evaluation."""
        before = {name: getattr(self.before, name) for name in ("ece", "brier")}
        after = {f"calibrated_{name}": getattr(self.after, name) for name in ("loss", "ece", "brier")}
        return {"temperature": self.temperature} | {
            f"{prefix}{name}": value for name, value in (before | after).items()
        }


def calibrate(learner: Learner, known: Tensor, truth: np.ndarray, logits: Tensor, labels: np.ndarray) -> Calibration:
    """Give the model the temperature that fits the validation images best, and return what it does to other images.

    Args:
        known: logits of the validation images; `truth` are their classes.
        logits: of the images that the model is evaluated on; `labels` are their classes.
    """
    temperature = learner.ranks.decided(lambda: fit_temperature(known, truth))
    learner.eval_model.temperature = temperature
    return Calibration(temperature, logits, labels, Coverage.of(probabilities(known, temperature), truth))


def probabilities(logits: Tensor, temperature: float = 1.0) -> np.ndarray:
    """Class probabilities, float32 (N, classes), of logits on the CPU."""
    return (logits / temperature).softmax(dim=1).numpy()


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See `calibration`; of probabilities (N, classes) and true classes (N,)."""
    return calibration(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of probabilities (N, classes), see `Scores`."""
    confidence, accuracy, fraction = reliability(probabilities, labels)
    return float((fraction * np.abs(accuracy - confidence)).sum())


def calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean confidence, accuracy, fraction of all examples) in `BINS` equal intervals of confidence; 0 in an empty one.

    Guo et al., "On calibration of modern neural networks", 2017; their expected calibration error is
    `sum(fraction * abs(accuracy - confidence))`.

    Args:
        confidence: the probability of the predicted class, shape (N,).
        right: whether the predicted class is the true one, shape (N,).
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    mean, accuracy = (total / np.maximum(counts, 1) for total in sums)
    return mean, accuracy, counts / len(confidence)
