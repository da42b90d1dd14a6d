"""One step of training: augment, forward, backward, update; and the average of the weights that is kept instead of them.

learner = Learner.create(config, initial_model(config, splits), splits.train, device)
loss, correct = learner.step(batch, epoch=1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments import config
from experiments.data import Images, Splits
from experiments.data.augmentation import Augmentation
from experiments.data.images import Batch
from experiments.models import build, classifier
from experiments.training import devices
from experiments.training.averaging import ExponentialMovingAverage
from experiments.training.optimizers import Optimizer, make_optimizer

INITIAL_PIXELS = 5000 * 32 * 32  # that a network may set its weights by: memory has to hold all of them several times


def initial_model(settings: config.Config, splits: Splits) -> classifier.Classifier:
    """The model before its first step, on the CPU: the same for the same seed, which is that of all that follows."""
    torch.manual_seed(settings.seed)
    data = settings.data
    model = build.build(settings.model, len(splits.classes), splits.image_shape, data.mean, data.std)
    build.check_image_sizes(model, settings.model.target, settings.training.image_sizes)
    if build.needs_data_init(model):
        _, height, width = splits.image_shape
        order = np.random.default_rng(settings.seed).permutation(len(splits.train))
        build.data_init(model, splits.train[order[: max(1, INITIAL_PIXELS // (height * width))]].pixels)
    return model


@dataclass(frozen=True)
class Learner:
    """What a step of training needs.

    Attributes:
        forward: pictures to logits by `model`, compiled where that was asked for.
        average: None where the weights themselves are evaluated and kept.
        class_weights: float32 (classes,), or None: the loss is a plain mean.
    """

    model: classifier.Classifier
    forward: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    average: ExponentialMovingAverage | None
    augmentation: Augmentation
    autocast: torch.autocast
    class_weights: Tensor | None
    settings: config.Config
    device: torch.device

    @classmethod
    def create(
        cls, settings: config.Config, model: classifier.Classifier, images: Images, device: torch.device
    ) -> Learner:
        """For a fresh model, which goes to `device`, and its training images."""
        training = settings.training
        model.to(device)
        return cls(
            model=model,
            forward=_compiled(model, device) if training.compile else model,
            optimizer=make_optimizer(
                model, settings.optimizer, torch.bfloat16 if settings.precision == "bf16" else torch.float32
            ),
            average=ExponentialMovingAverage(model, training.ema) if training.ema is not None else None,
            augmentation=Augmentation(settings.augment, len(images.classes)),
            autocast=devices.autocast(settings, device.type),
            class_weights=torch.tensor(images.balancing_weights, dtype=torch.float32, device=device)
            if training.class_weights == "balanced"
            else None,
            settings=settings,
            device=device,
        )

    @property
    def eval_model(self) -> classifier.Classifier:
        """The model that is validated, tested and kept."""
        return self.average.model if self.average else self.model

    def set_rate(self, share: float) -> None:
        """The learning rate of every group of parameters, as a share of its own."""
        for group in self.optimizer.groups:
            group.rate = group.base_rate * share

    def step(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Learn from a batch; gives its mean loss and how many it had right, on the device. Nothing waits for either."""
        pictures, targets = self.augmentation(batch, epoch)
        pictures = resized(pictures, self.settings.training.image_sizes[epoch - 1 : epoch])
        with self.autocast:
            logits = self.forward(pictures)
        training = self.settings.training
        loss = cross_entropy(logits.float(), targets, self.class_weights, training.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.gradient_clip)
        self.optimizer.step()
        labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()


def _compiled(model: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """`model` by torch.compile, with CUDA graphs on a GPU; the smaller last batch is compiled by itself."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(model, mode=mode, dynamic=False)


def resized(pictures: Tensor, sides: Sequence[int]) -> Tensor:
    """Pictures (batch, 3, H, W) with so many pixels a side, where `sides` names any; values from 0 to 255 either way."""
    if not sides or pictures.shape[2:] == (sides[0], sides[0]):
        return pictures
    return functional.interpolate(pictures.float(), (sides[0], sides[0]), mode="bilinear", antialias=True)


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """The mean over a batch, where there are weights weighted by those of the targets' classes.

    Of targets (batch, classes), which mix classes, torch would divide by the number of pictures; here, as of labels
    (batch,), by the sum of the weights, so that a mixture of one class is that class.
    """
    if class_weights is None or not targets.is_floating_point():
        return functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing)
    total = functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing, reduction="sum")
    return total / (targets @ class_weights).sum()
