"""The loop: one epoch of training, one validation, one result; and when to stop.

for epoch in train(model, optimizer, train_batches, validation_batches, range(1, 26), autocast, progress):
    if stopping.update(epoch.metrics): break
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments import config
from experiments.data.batches import Batches
from experiments.evaluation import Evaluation, evaluate


class Diverged(RuntimeError):
    """The loss is no number any more."""


class Progress(Protocol):
    """Shows what happens inside an epoch; called once a step, so it must decide by itself how often to look."""

    def step(self, epoch: int, step: int, images: int, losses: Tensor, correct: Tensor) -> None:
        """`losses[:step]` are sums over batches, `correct` counts right answers; reading either may wait for a GPU."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave; `epoch` counts from 1, `seconds` includes the validation."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation: Evaluation
    learning_rate: float
    seconds: float
    images: int  # trained on and validated

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "train/loss": self.train_loss,
            "train/accuracy": self.train_accuracy,
            "val/loss": self.validation.loss,
            "val/accuracy": self.validation.accuracy,
            "learning_rate": self.learning_rate,
            "epoch_seconds": self.seconds,
            "images_per_second": self.images / self.seconds,
        }


def make_optimizer(model: nn.Module, settings: config.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, over all parameters of `model`, in one fused kernel a step."""
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    if isinstance(settings, config.Adam):
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        return kind(model.parameters(), betas=(settings.beta1, settings.beta2), eps=settings.epsilon, **common)
    assert isinstance(settings, config.SGD)
    return torch.optim.SGD(model.parameters(), momentum=settings.momentum, nesterov=settings.nesterov, **common)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_batches: Batches,
    validation_batches: Batches,
    epochs: Iterable[int],
    autocast: torch.autocast,
    progress: Progress,
    class_weights: Tensor | None = None,
) -> Iterator[EpochResult]:
    """Train and validate epoch after epoch, and yield each result before the next epoch starts.

    With `class_weights` (classes,) the training loss is the weighted mean; validation is never weighted.

    Raises:
        Diverged: naming epoch and step, where the loss is not finite.
    """
    images = len(train_batches.images) + len(validation_batches.images)
    for epoch in epochs:
        started = time.perf_counter()
        loss, accuracy = _train_epoch(model, optimizer, train_batches, epoch, autocast, progress, class_weights)
        validation = evaluate(model, validation_batches, autocast)
        rate = optimizer.param_groups[0]["lr"]
        result = EpochResult(epoch, loss, accuracy, validation, rate, time.perf_counter() - started, images)
        if not torch.tensor(validation.loss).isfinite():
            raise Diverged(f"validation loss is {validation.loss} after epoch {epoch}; {_advice(optimizer)}")
        yield result


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    epoch: int,
    autocast: torch.autocast,
    progress: Progress,
    class_weights: Tensor | None,
) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch, each example counted as it was when it was trained on.

    Loss and counts stay on the device until the end: reading one number a step would make a GPU wait for the CPU.
    """
    losses = torch.zeros(len(batches), device=batches.device)
    correct = torch.zeros((), dtype=torch.int64, device=batches.device)
    images = 0
    model.train()
    for step, (pixels, labels, _) in enumerate(batches, start=1):
        with autocast:
            logits = model(pixels)
        loss = functional.cross_entropy(logits.float(), labels, weight=class_weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[step - 1] = loss.detach() * len(labels)
        correct += (logits.detach().argmax(dim=1) == labels).sum()
        images += len(labels)
        progress.step(epoch, step, images, losses, correct)
    sums = losses.cpu().double()
    broken = (~sums.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise Diverged(f"loss is {sums[step].item()} in epoch {epoch}, step {step + 1}; {_advice(optimizer)}")
    return sums.sum().item() / images, correct.item() / images


def _advice(optimizer: torch.optim.Optimizer) -> str:
    return f"try optimizer.lr below {optimizer.param_groups[0]['lr']:g}"


class EarlyStopping:
    """Watches one metric: which epoch was best, and whether it is time to stop."""

    def __init__(self, settings: config.EarlyStopping) -> None:
        self.settings = settings
        self.best_epoch = 0
        self.best = float("-inf")  # the metric times its sign, so that higher is better
        self.waited = 0  # epochs since the best one
        self.stopped = False

    def update(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of an epoch; True where it was the last."""
        value = metrics[self.settings.monitor] * self.settings.sign
        if value > self.best + (self.settings.min_delta if self.best_epoch else 0):
            self.best, self.best_epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
            self.stopped = self.settings.patience is not None and self.waited >= self.settings.patience
        return self.stopped

    def state_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        vars(self).update(state)
