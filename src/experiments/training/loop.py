"""The loop over epochs: train, validate, yield the result.

learner = Learner.create(config, model, splits.train, device)
for epoch in train(learner, train_batches, validation_batches, range(1, 26), progress):
    if stopping.update(epoch.epoch, epoch.metrics):
        break
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.config.errors import RunFailed
from experiments.config.metrics import EPOCH_METRICS
from experiments.data.batches import Batches
from experiments.training import schedules
from experiments.training.evaluation import Evaluation, evaluate
from experiments.training.learner import Learner


class Diverged(RunFailed):
    """The loss is not finite."""


class Progress(Protocol):
    """Shows the progress within an epoch."""

    def step(self, epoch: int, step: int, images: int, losses: Tensor, correct: Tensor) -> None:
        """Called after every step.

        `losses[:step]` are the sums over the batches so far, `correct` is the number of correct predictions. Both are
        on the device: reading them makes the CPU wait for a GPU, so it should be done rarely.
        """


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch; `epoch` counts from 1, `seconds` includes the validation."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation: Evaluation
    learning_rate: float
    seconds: float
    images: int  # trained on and validated

    @property
    def metrics(self) -> dict[str, float]:
        """By their names in MLflow, in the order of the table of metrics."""
        measured = {
            "train/loss": self.train_loss,
            "train/accuracy": self.train_accuracy,
            "learning_rate": self.learning_rate,
            "epoch_seconds": self.seconds,
            "images_per_second": self.images / self.seconds,
        }
        return {
            name: measured[name] if name in measured else getattr(self.validation, name.removeprefix("val/"))
            for name in EPOCH_METRICS
        }


def train(
    learner: Learner, train_batches: Batches, validation_batches: Batches, epochs: Iterable[int], progress: Progress
) -> Iterator[EpochResult]:
    """Train and validate epoch after epoch, and yield each result before the next epoch starts.

    Validation is never weighted, smoothed, augmented or compiled.

    Raises:
        Diverged: the loss is not finite; the message names the epoch and the step.
    """
    images = len(train_batches.images) + len(validation_batches.images)
    for epoch in epochs:
        started = time.perf_counter()
        loss, accuracy = _train_epoch(learner, train_batches, epoch, progress)
        validation = evaluate(learner.eval_forward, validation_batches, learner.autocast, learner.config.evaluation.tta)
        result = EpochResult(epoch, loss, accuracy, validation, learner.lr, time.perf_counter() - started, images)
        if not math.isfinite(validation.loss):
            raise Diverged(f"validation loss is {validation.loss} after epoch {epoch}; {_advice(learner)}")
        yield result


def _train_epoch(learner: Learner, batches: Batches, epoch: int, progress: Progress) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch, of every image by the weights that it was trained with.

    Losses and counts stay on the device until the end: reading a number at every step would make the CPU wait for a GPU.
    """
    losses = torch.zeros(len(batches), device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    images = 0
    schedule, epochs = learner.config.schedule, learner.config.training.epochs
    learner.train_mode(epoch)
    for step, batch in enumerate(batches):
        position = (epoch - 1) * len(losses) + step
        learner.set_lr(schedules.factor(schedule, position, len(losses), epochs))
        loss, right = learner.step(batch, epoch)
        if learner.average:
            learner.average.update(position)
        losses[step] = loss * len(batch.labels)
        correct += right
        images += len(batch.labels)
        progress.step(epoch, step + 1, images, losses, correct)
    sums = losses.cpu().double()
    not_finite = (~sums.isfinite()).nonzero()
    if len(not_finite):
        step = int(not_finite[0])
        raise Diverged(f"loss is {sums[step].item()} in epoch {epoch}, step {step + 1}; {_advice(learner)}")
    return sums.sum().item() / images, correct.item() / images


def _advice(learner: Learner) -> str:
    return f"try optimizer.lr below {learner.config.optimizer.lr:g}"
