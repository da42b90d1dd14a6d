"""One step of training: augment, forward, backward, update. And the model before the first step.

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

from experiments.config import Config
from experiments.data import Images, Splits
from experiments.data.augmentation import Augmentation, random_crops
from experiments.data.batches import Batches
from experiments.data.images import Batch
from experiments.models.build import build, check_batch_norm, check_image_sizes, data_init, needs_data_init
from experiments.models.classifier import Classifier
from experiments.training import devices
from experiments.training.averaging import ExponentialMovingAverage
from experiments.training.optimizers import Optimizer, make_optimizer

INITIAL_PIXELS = 5000 * 32 * 32  # for the data-dependent initialisation, which needs several times their memory


def initial_model(config: Config, splits: Splits) -> Classifier:
    """The model before the first step, on the CPU: always the same for the same seed.

    Seeds torch's global random generator, which all of the training then uses.
    """
    torch.manual_seed(config.seed)
    model = build(config, len(splits.classes))
    check_image_sizes(model, config.model.target, config.training.image_sizes)
    check_batch_norm(model, config.training.batch_size, len(splits.train))
    if needs_data_init(model):
        _, height, width = splits.image_shape
        order = np.random.default_rng(config.seed).permutation(len(splits.train))
        data_init(model, splits.train[order[: max(1, INITIAL_PIXELS // (height * width))]].pixels)
    return model


def training_batches(config: Config, images: Images, device: torch.device) -> Batches:
    """The batches of an epoch, drawn anew for each."""
    crops = random_crops(config.augment, images)
    size, order = config.training.batch_size, config.training.sampler
    return Batches(images, size, device, order, crops=crops, threads=config.data.workers)


@dataclass(frozen=True)
class Learner:
    """Everything that a training step needs.

    Attributes:
        forward: `model`, compiled if training.compile is set.
        average: of the weights of `model`, evaluated and kept instead of these; None without training.ema.
        class_weights: float32 (classes,), or None: the loss is a plain mean.
    """

    model: Classifier
    forward: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    average: ExponentialMovingAverage | None
    augmentation: Augmentation
    autocast: torch.autocast
    class_weights: Tensor | None
    config: Config
    device: torch.device

    @classmethod
    def create(cls, config: Config, model: Classifier, images: Images, device: torch.device) -> Learner:
        """A learner for a fresh model, which is moved to `device`, and its training images."""
        training = config.training
        model.to(device)
        return cls(
            model=model,
            forward=_compiled(model, device, len(set(training.image_sizes)) or 1) if training.compile else model,
            optimizer=make_optimizer(
                model, config.optimizer, torch.bfloat16 if config.precision == "bf16" else torch.float32
            ),
            average=ExponentialMovingAverage(model, training.ema) if training.ema is not None else None,
            augmentation=Augmentation(config.augment, len(images.classes)),
            autocast=devices.autocast(config, device.type),
            class_weights=torch.tensor(images.balancing_weights, dtype=torch.float32, device=device)
            if training.class_weights == "balanced"
            else None,
            config=config,
            device=device,
        )

    @property
    def eval_model(self) -> Classifier:
        """The model that is validated, tested and kept."""
        return self.average.model if self.average else self.model

    def set_lr(self, factor: float) -> None:
        """Set the learning rate of every group of parameters to `factor` times its base learning rate."""
        for group in self.optimizer.groups:
            group.lr = group.base_lr * factor

    def step(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Learn from a batch. Returns its mean loss and the number of correct predictions, on the device.

        Nothing here makes the CPU wait for a GPU.
        """
        images, targets = self.augmentation(batch, epoch)
        images = resize(images, self.config.training.image_sizes[epoch - 1 : epoch])
        with self.autocast:
            logits = self.forward(images)
        training = self.config.training
        loss = cross_entropy(logits.float(), targets, self.class_weights, training.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.gradient_clip)
        self.optimizer.step()
        labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()


def _compiled(model: nn.Module, device: torch.device, sizes: int) -> Callable[[Tensor], Tensor]:
    """`model` by torch.compile, with CUDA graphs on a GPU; each size of a batch and of an image is compiled separately.

    PyTorch counts the compilations of a process. Beyond a limit it would run the model without compiling it, which may
    change the numbers. So each run starts at 0, the limit fits its shapes, and a run that reaches it fails.
    """
    from torch import _dynamo  # takes 2 s

    _dynamo.reset()
    _dynamo.config.recompile_limit = 8 * 2 * sizes  # 8 is PyTorch's default, for one shape
    _dynamo.config.fail_on_recompile_limit_hit = True
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(model, mode=mode, dynamic=False)


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Images (batch, 3, H, W) resized to `size[0]` pixels per side, or unchanged if `size` is empty; from 0 to 255."""
    if not size or images.shape[2:] == (size[0], size[0]):
        return images
    return functional.interpolate(images.float(), (size[0], size[0]), mode="bilinear", antialias=True)


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float) -> Tensor:
    """The mean cross-entropy over a batch, weighted by the weights of the targets' classes, if there are any.

    For mixed targets (batch, classes) PyTorch divides by the number of images. Here the sum of the weights divides, as for
    labels (batch,), so that a mixture of only one class gives the same loss as its label.
    """
    if class_weights is None or not targets.is_floating_point():
        return functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing)
    total = functional.cross_entropy(logits, targets, class_weights, label_smoothing=smoothing, reduction="sum")
    return total / (targets @ class_weights).sum()
