"""The content of a report on a run, or on an evaluation of a finished run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.config import Config
from experiments.config.metrics import final_value
from experiments.config.wording import counted, named, percent
from experiments.data import Images, Splits
from experiments.models.classifier import Layers
from experiments.reports.corruptions import Corrupted
from experiments.training.calibration import Calibration, calibration_error, reliability
from experiments.training.coverage import Coverage
from experiments.training.evaluation import Evaluation, wilson_interval

FEW, FEW_OF_A_CLASS = 30, 5  # images; below, an accuracy is known only roughly
Reliability = tuple[np.ndarray, np.ndarray, np.ndarray]
NAMED = 4  # classes with few images, at most


@dataclass(frozen=True)
class Content:
    """What a report shows.

    Attributes:
        split: name of the split that was evaluated.
        images: the images that were evaluated; `probabilities` (N, classes) and `evaluation` belong to them.
        class_counts: split -> images per class, (classes,); the evaluated split is the last.
        protocol: how often the test set was used, and what was selected on which images.
        skipped: the broken pictures that were left out, each with its name and what is wrong with it.
        history: metrics of each epoch; empty if nothing was trained.
        kept_epoch: the epoch whose weights were evaluated.
        calibration: of these images; None if the network is not calibrated.
        augmented: training images without augmentation and as in the first epochs, uint8 (1 + epochs, images, 3, H, W);
            None if there is no augmentation.
        corrupted: the accuracy on the same images with corruptions; empty if that was not measured.
    """

    name: str
    command: str
    config: Config
    split: str
    images: Images
    probabilities: np.ndarray
    evaluation: Evaluation
    class_counts: Mapping[str, np.ndarray]
    layers: Layers
    protocol: str
    environment: Mapping[str, str]
    skipped: Sequence[str] = ()
    history: Sequence[Mapping[str, float]] = ()
    best_epoch: int = 0
    kept_epoch: int = 0
    augmented: np.ndarray | None = None
    calibration: Calibration | None = None
    corrupted: Corrupted = field(default_factory=Corrupted)

    @property
    def note(self) -> str:
        """How the views of an image are averaged; empty if there is only one view."""
        return self.config.evaluation.note

    @property
    def title(self) -> str:
        """The accuracy and what it is measured on, for a figure."""
        accuracy = f"accuracy {percent(self.evaluation.accuracy, 2)} of {counted(len(self.images), 'image')}"
        return ", ".join(filter(None, [accuracy, self.note]))

    @property
    def few_images(self) -> str:
        """See `few_images`."""
        return few_images(self.class_counts, self.images.classes, self.evaluation.accuracy)

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, (N,)."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Predicted class, (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities differ from those of the network as it was trained."""
        return self.calibration is not None and self.calibration.temperature != 1

    @property
    def reliability(self) -> dict[str, Reliability]:
        """Confidence, accuracy and fraction of the images per bin, by a label with the expected calibration error."""
        if self.calibration is None or not self.calibrated:
            return {"the network": self._reliability(self.probabilities)}
        before, after = self.calibration.before.ece, self.calibration.after.ece
        return {
            f"before: calibration error {before:.3f}": self._reliability(self.calibration.uncalibrated),
            f"after: {after:.3f}, temperature {self.calibration.temperature:.3g}": self._reliability(
                self.probabilities
            ),
        }

    def _reliability(self, probabilities: np.ndarray) -> Reliability:
        return reliability(probabilities, self.images.labels)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: the mean distance of confidence and accuracy over all images."""
        return calibration_error(self.probabilities, self.images.labels)

    @property
    def coverage(self) -> Coverage:
        """Accuracy of the most confident predictions."""
        return Coverage.of(self.probabilities, self.images.labels)

    @property
    def augmented_rows(self) -> dict[str, np.ndarray]:
        """The rows of `augmented` by name, (images, 3, H, W) each; empty if there is no augmentation."""
        rows = () if self.augmented is None else self.augmented
        return {f"epoch {epoch}" if epoch else "original": images for epoch, images in enumerate(rows)}


def class_counts(splits: Splits, test: bool) -> dict[str, np.ndarray]:
    """Images per class of each split, the evaluated one last; the test set only if it may be used."""
    return {name: images.class_counts for name, images in splits.parts().items() if test or name != "test"}


def few_images(counts: Mapping[str, np.ndarray], classes: Sequence[str], accuracy: float) -> str:
    """One line if there are few images: which, and what that means for the accuracy; empty if there are enough.

    Args:
        counts: see `class_counts`.
        accuracy: on the evaluated split.
    """
    totals = {split: int(images.sum()) for split, images in counts.items()}
    few = [counted(total, f"{_kind(split)} image") for split, total in totals.items() if total < FEW]
    of_classes = [
        f"{counted(int(count), f'{_kind(split)} image')} of {name}"
        for split, images in counts.items()
        for name, count in zip(classes, images)
        if 0 < count < FEW_OF_A_CLASS and totals[split] >= FEW  # else the whole split is named
    ]
    if not few and not of_classes:
        return ""
    *_, split = counts
    low, high = wilson_interval(round(accuracy * totals[split]), totals[split])
    measured = any(f" {split} image" in words for words in (*few, *of_classes))
    meaning = f"says little about {'this class' if len(of_classes) == 1 else 'these classes'}"
    if few:
        meaning = "may differ much with other training or validation images"
    if measured:
        meaning = "is only an estimate"
    return (
        f"few images ({', '.join(filter(None, [*few, named(of_classes, NAMED)]))}): the {split} accuracy {accuracy:.4f} "
        f"{meaning}, its 95 % interval is {max(low, 0):.4f} to {min(high, 1):.4f}"
    )


def _kind(split: str) -> str:
    return "training" if split == "train" else split


def few_images_of_run(splits: Splits, results: Mapping[str, float]) -> str:
    """See `few_images`; of a run with these final metrics."""
    tested = "test/accuracy" in results
    accuracy = final_value(results, "test/accuracy" if tested else "val/accuracy")
    return few_images(class_counts(splits, tested), splits.classes, accuracy) if accuracy is not None else ""


def protocol(config: Config, test: bool) -> str:
    """How often, and with which weights, the test set was used, and what was selected on the validation set."""
    stopping = config.early_stopping
    weights = f"the weights of the {'best' if stopping.restore_best else 'last'} epoch"
    uses = {"early stopping": stopping.patience is not None, "the choice of the epoch": stopping.restore_best}
    selected = " and ".join(use for use, made in uses.items() if made)
    if test:
        validation = (
            f"{selected} used only the validation set" if selected else "nothing was selected on validation data"
        )
        return f"The test set was used once, after training, with {weights}; {validation}."
    validation = f"{selected} used it too, so they are optimistic" if selected else "nothing was selected on it"
    return f"The test set was not used. These results are for the validation set, with {weights}; {validation}."
