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
from experiments.data.finding import tell_once
from experiments.data.images import Batch
from experiments.data.rows import Rows, split_in_parts
from experiments.models import freezing
from experiments.models.build import build, check_batch_norm, check_image_sizes, data_init, needs_data_init
from experiments.models.classifier import Classifier
from experiments.models.weights import Weights, load
from experiments.training import devices
from experiments.training.averaging import ExponentialMovingAverage
from experiments.training.compiling import compiled
from experiments.training.features import Cut, find_cut, unchanged
from experiments.training.loss import correct, cross_entropy, total_weight
from experiments.training.optimizers import Optimizer, make_optimizer
from experiments.training.parallel import Parallel
from experiments.training.ranks import OneProcess, Ranks

INITIAL_PIXELS = 5000 * 32 * 32  # for the data-dependent initialisation, which needs several times their memory


def initial_model(config: Config, splits: Splits, weights: Weights | None = None) -> Classifier:
    """The model before the first step, on the CPU: always the same for the same seed and the same weights.

    Seeds torch's global random generator, which all of the training then uses. Logs which of the weights are not taken.

    Raises:
        UserError: the network does not fit the images, the batches, or the weights.
    """
    torch.manual_seed(config.seed)
    model = build(config, len(splits.classes))
    freezing.freeze(model, config.training.freeze)
    check_image_sizes(model, config.model.title, config.training.image_sizes)
    check_batch_norm(model, config.training.batch_size, len(splits.train), config.training.accumulate)
    if needs_data_init(model) and not (weights and weights.complete):
        _, height, width = splits.image_shape
        order = np.random.default_rng(config.seed).permutation(len(splits.train))
        data_init(model, splits.train[order[: max(1, INITIAL_PIXELS // (height * width))]].pixels)
    if weights is not None:
        if incomplete := load(weights, model, config.model.title, splits.classes):
            tell_once(incomplete)
        model.weights_digest = weights.digest()
    return model


def training_batches(
    config: Config, images: Images, device: torch.device, *beside: Images, rows: Rows | None = None
) -> Batches:
    """The batches of an epoch, drawn anew for each.

    Args:
        beside: other images that a GPU must have room for.
        rows: of each batch that this process trains on, if it is one of several.
    """
    crops = random_crops(config.augment, images)
    size, order = config.training.batch_size, config.training.sampler
    read = None if config.augment.mixes else rows  # an image may be mixed with one of another process
    threads = config.data.workers
    return Batches(images, size, device, order, crops=crops, threads=threads, rows=read, beside=beside)


@dataclass(frozen=True)
class Learner:
    """Everything that a training step needs.

    Attributes:
        forward: `model`, compiled if training.compile is set; with frozen features, its head.
        average: of the weights of `model`, evaluated and kept instead of these; None without training.ema.
        class_weights: float32 (classes,), or None: the loss is a plain mean.
        cut: where the network is cut if a frozen backbone computes the features of every image once; else None.
        not_cut: why not, if the backbone is frozen; else empty.
        uses_graphs: whether `forward` replays CUDA graphs.
        ranks: the processes that train the model.
    """

    model: Classifier
    forward: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    average: ExponentialMovingAverage | None
    augmentation: Callable[[Batch, int], tuple[Tensor, Tensor]]
    autocast: torch.autocast
    class_weights: Tensor | None
    config: Config
    device: torch.device
    cut: Cut | None
    not_cut: str
    uses_graphs: bool
    ranks: OneProcess | Ranks

    @classmethod
    def create(
        cls,
        config: Config,
        model: Classifier,
        images: Images,
        device: torch.device,
        ranks: OneProcess | Ranks = OneProcess(),  # noqa: B008 - immutable
    ) -> Learner:
        """A learner for a fresh model, which is moved to `device`, and its training images."""
        training, settings = config.training, config.optimizer
        ranks.check(config, len(images))
        model.to(device)
        ranks.synchronise(model)
        autocast = devices.autocast(config, device.type)
        cut, not_cut = find_cut(config, model, autocast)
        freezing.set_trainable(model, training.unfreeze_epoch is not None)  # what joins later is in both from the start
        precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        shares = freezing.learning_rate_shares(model, settings.backbone_lr, settings.layer_decay)
        optimizer = make_optimizer(model, settings, precision, shares)
        average = ExponentialMovingAverage(model, training.ema) if training.ema is not None else None
        freezing.set_trainable(model, False)
        network = compiled(model, device, len(set(training.image_sizes)) or 1) if training.compile else model
        return cls(
            model=model,
            forward=ranks.parallel(cut.head(model) if cut else network, config),
            optimizer=optimizer,
            average=average,
            augmentation=unchanged
            if cut
            else Augmentation(config.augment, len(images.classes), None if config.augment.mixes else ranks.rows),
            autocast=autocast,
            class_weights=torch.tensor(images.balancing_weights, dtype=torch.float32, device=device)
            if training.class_weights == "balanced"
            else None,
            config=config,
            device=device,
            cut=cut,
            not_cut=not_cut,
            uses_graphs=training.compile and not cut and device.type == "cuda",
            ranks=ranks,
        )

    @property
    def eval_model(self) -> Classifier:
        """The model that is validated, tested and kept."""
        return self.average.model if self.average else self.model

    @property
    def eval_forward(self) -> nn.Module:
        """What is called to evaluate `eval_model`: this model, or with frozen features its head."""
        return self.cut.head(self.eval_model) if self.cut else self.eval_model

    @property
    def lr(self) -> float:
        """The learning rate of the last step, of the parameters with the largest one: the head's."""
        first = self.optimizer.groups[0]
        return first.lr / first.share

    def train_mode(self, epoch: int, step: int = 0) -> None:
        """Training mode as it is in `epoch`, counted from 1, after `step`: with frozen layers before training.unfreeze_epoch."""
        training = self.config.training
        if training.freeze == freezing.NONE:
            self.model.train()
        elif training.unfreeze_epoch and epoch >= training.unfreeze_epoch:
            freezing.train_unfrozen(self.model, training.freeze)
        else:
            freezing.train(self.model, training.freeze)
        if isinstance(self.forward, Parallel):
            self.forward.begin(epoch, step)

    def set_lr(self, factor: float) -> None:
        """Set the learning rate of every group of parameters to `factor` times its base learning rate."""
        for group in self.optimizer.groups:
            group.lr = group.base_lr * factor

    def step(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Learn from a batch. Returns its mean loss and the number of correct predictions, on the device.

        Nothing here makes the CPU wait for a GPU.
        """
        images, targets = self.augmentation(batch, epoch)
        training = self.config.training
        images = resize(images, training.image_sizes[epoch - 1 : epoch])
        self._begin()
        if training.accumulate > 1 or self.ranks.rows:
            return self._step_in_parts(images, targets)
        with self.autocast:
            logits = self.forward(images)
        loss = cross_entropy(logits.float(), targets, self.class_weights, training.label_smoothing)
        loss.backward()
        self._update()
        return loss.detach(), correct(logits, targets)

    def _step_in_parts(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`step` with the gradients of parts of the batch added up: the loss is the sum over all images, divided once.

        Only the statistics of BatchNorm, and random numbers of dropout, are those of each part. Of several processes, each
        returns its part of the loss, and of the correct predictions; `targets` are those of the whole batch.
        """
        training, rows = self.config.training, self.ranks.rows
        weight = total_weight(targets, self.class_weights)
        share = weight / rows.count if rows else weight  # the gradients are the mean over all processes
        losses, right = [], []
        divided = split_in_parts(images, targets, training.batch_size, training.accumulate)
        parts = rows.pieces(images, targets) if rows else divided
        for number, (some, their) in enumerate(parts, 1):
            if isinstance(self.forward, Parallel):
                self.forward.adds = number < len(parts)
            with self.autocast:
                logits = self.forward(some)
            loss = functional.cross_entropy(
                logits.float(), their, self.class_weights, label_smoothing=training.label_smoothing, reduction="sum"
            )
            (loss / share).backward()
            losses.append(loss.detach())
            right.append(correct(logits, their))
        self._update()
        return torch.stack(losses).sum() / weight, torch.stack(right).sum()

    def _begin(self) -> None:
        """Drop the gradients of the last step. CUDA graphs reuse the memory of what they returned in it: gradients and logits.

        The parts of a batch belong to one step, because their gradients are added up.
        """
        self.optimizer.zero_grad()
        if self.uses_graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def _update(self) -> None:
        """Update the parameters by their gradients."""
        if self.config.training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.training.gradient_clip)
        self.optimizer.step()


def resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Images (batch, 3, H, W) resized to `size[0]` pixels per side, or unchanged if `size` is empty; from 0 to 255."""
    if not size or images.shape[2:] == (size[0], size[0]):
        return images
    return functional.interpolate(images.float(), (size[0], size[0]), mode="bilinear", antialias=True)
