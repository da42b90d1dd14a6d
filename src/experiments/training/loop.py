"""The loop over epochs: train, validate, yield the result.

learner = Learner.create(config, model, splits.train, device)
for epoch in train(learner, train_batches, validation_batches, range(1, 26), progress):
    if stopping.update(epoch.epoch, epoch.metrics):
        break
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from experiments.config.errors import RunFailed
from experiments.config.metrics import EPOCH_METRICS
from experiments.data.batches import Batches
from experiments.data.images import Batch
from experiments.training import schedules
from experiments.training.evaluation import Evaluation, evaluate
from experiments.training.learner import Learner
from experiments.training.ranks import OneProcess, Ranks


class Diverged(RunFailed):
    """The loss is not finite."""


@dataclass
class RunningEpoch:
    """The steps of an epoch that are done. Between two steps it can be saved, and the epoch can continue from it.

    Losses and counts are on the device: reading them makes the CPU wait for a GPU, so it should be done rarely.

    Attributes:
        epoch: counts from 1.
        random: the state of torch's CPU generator before the epoch, from which the order of the images is drawn.
        losses: the sum over each batch, float32 (steps of the epoch,).
        correct: the number of correct predictions, int64 ().
        started: the time of `time.perf_counter` at which the epoch started, as if it had never been interrupted.
        step: the number of steps that are done.
        images: the number of images in them.

    Of several processes, each has its part of the losses and of the correct predictions, until `summed`.
    """

    epoch: int
    random: Tensor
    losses: Tensor
    correct: Tensor
    started: float
    step: int = 0
    images: int = 0

    @classmethod
    def begin(cls, epoch: int, batches: Batches) -> RunningEpoch:
        losses = torch.zeros(len(batches), device=batches.device)
        correct = torch.zeros((), dtype=torch.int64, device=batches.device)
        return cls(epoch, torch.get_rng_state(), losses, correct, time.perf_counter())

    @property
    def is_complete(self) -> bool:
        """All steps are done; the validation may not be."""
        return self.step == len(self.losses)

    def remaining(self, batches: Batches) -> Iterator[Batch]:
        """The batches of the steps that are left. What is drawn once per epoch is drawn as it was when the epoch started."""
        if self.step == 0:
            return iter(batches)
        now = torch.get_rng_state()
        torch.set_rng_state(self.random)
        left = batches.from_step(self.step)
        torch.set_rng_state(now)
        return left

    def summed(self, ranks: OneProcess | Ranks) -> RunningEpoch:
        """The same with the losses and the correct predictions of all processes."""
        return dataclasses.replace(self, losses=ranks.sum(self.losses), correct=ranks.sum(self.correct))

    def scaled(self, factor: int) -> RunningEpoch:
        """An estimate of `summed` from the part of this process, one of `factor`."""
        return dataclasses.replace(self, losses=self.losses * factor, correct=self.correct * factor)

    def state_dict(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain | {"started": self.started - time.perf_counter()}  # a clock that starts anew in each process

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> RunningEpoch:
        """The epoch that `state_dict` describes, with its tensors on `device`."""
        moved = {name: state[name].to(device) for name in ("losses", "correct")}
        return cls(**state | moved | {"started": time.perf_counter() + state["started"]})


class Progress(Protocol):
    """Shows the progress within an epoch."""

    def step(self, running: RunningEpoch) -> None:
        """Called after every step."""


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
    learner: Learner,
    train_batches: Batches,
    validation_batches: Batches,
    epochs: Iterable[int],
    progress: Progress,
    interrupted: RunningEpoch | None = None,
) -> Iterator[EpochResult]:
    """Train and validate epoch after epoch, and yield each result before the next epoch starts.

    Validation is never weighted, smoothed, augmented or compiled.

    Args:
        interrupted: the first of `epochs`, if some of its steps were done before an interruption.

    Raises:
        Diverged: the loss is not finite; the message names the epoch and the step.
    """
    images = len(train_batches.images) + learner.ranks.count * len(validation_batches.images)
    for epoch in epochs:
        running, interrupted = interrupted or RunningEpoch.begin(epoch, train_batches), None
        loss, accuracy = _train_epoch(learner, train_batches, running, progress)
        ranks, tta = learner.ranks, learner.config.evaluation.tta
        ranks.same_buffers(learner.eval_model)
        validation = evaluate(learner.eval_forward, validation_batches, learner.autocast, tta, ranks)
        result = EpochResult(
            epoch, loss, accuracy, validation, learner.lr, time.perf_counter() - running.started, images
        )
        if not math.isfinite(validation.loss):
            raise Diverged(f"validation loss is {validation.loss} after epoch {epoch}; {_advice(learner)}")
        yield result


def _train_epoch(learner: Learner, batches: Batches, running: RunningEpoch, progress: Progress) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch, of every image by the weights that it was trained with."""
    epoch, steps = running.epoch, len(running.losses)
    schedule, epochs = learner.config.schedule, learner.config.training.epochs
    learner.train_mode(epoch, running.step)
    learner.set_lr(
        schedules.factor(schedule, epoch * steps - 1, steps, epochs)
    )  # no step is left after validation was cut
    for step, batch in enumerate(running.remaining(batches), running.step):
        position = (epoch - 1) * steps + step
        learner.set_lr(schedules.factor(schedule, position, steps, epochs))
        loss, right = learner.step(batch, epoch)
        if learner.average:
            learner.average.update(position)
        running.losses[step] = loss * len(batch.labels)
        running.correct += right
        running.images += len(batch.labels)
        running.step = step + 1
        progress.step(running)
    running = running.summed(learner.ranks)
    sums = running.losses.cpu().double()
    not_finite = (~sums.isfinite()).nonzero()
    if len(not_finite):
        step = int(not_finite[0])
        raise Diverged(f"loss is {sums[step].item()} in epoch {epoch}, step {step + 1}; {_advice(learner)}")
    return sums.sum().item() / running.images, running.correct.item() / running.images


def _advice(learner: Learner) -> str:
    return f"try optimizer.lr below {learner.config.optimizer.lr:g}"
