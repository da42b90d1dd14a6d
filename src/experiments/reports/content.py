"""What a report shows of a run, or of an evaluation of a finished run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments.config import Config
from experiments.data import Images, Splits
from experiments.models.classifier import Layer
from experiments.training.calibration import calibration
from experiments.training.evaluation import Evaluation


@dataclass(frozen=True)
class Content:
    """What a report tells of.

    Attributes:
        split: name of the split that was evaluated.
        images: the images that were evaluated; `probabilities` (N, classes) and `evaluation` are about them.
        class_counts: split -> images per class, (classes,); the evaluated split is the last.
        protocol: how often the test set was used, and what was selected on which images.
        history: metrics of each epoch; empty where nothing was trained.
        augmented: training pictures as they are and as some epochs show them, uint8 (1 + epochs, pictures, 3, H, W);
            None where nothing changes them.
    """

    name: str
    command: str
    config: Config
    split: str
    images: Images
    probabilities: np.ndarray
    evaluation: Evaluation
    class_counts: Mapping[str, np.ndarray]
    layers: Sequence[Layer]
    protocol: str
    environment: Mapping[str, str]
    history: Sequence[Mapping[str, float]] = ()
    best_epoch: int = 0
    augmented: np.ndarray | None = None

    @property
    def note(self) -> str:
        """How predictions were made, where that was not plainly."""
        return self.config.evaluation.note

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, (N,)."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Predicted class, (N,)."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def calibration(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `calibration`."""
        return calibration(self.confidence, self.predicted == self.images.labels)


def class_counts(splits: Splits, test: bool) -> dict[str, np.ndarray]:
    """Images per class of each split, the examined one last; the test set only where it may be used."""
    return {name: images.class_counts for name, images in splits.parts().items() if test or name != "test"}


def protocol(config: Config, test: bool) -> str:
    """How often, and with which weights, the test set was used, and what was selected on the validation set."""
    stopping = config.early_stopping
    weights = f"with the weights of {'the best epoch' if stopping.restore_best else 'the last epoch'}"
    uses = {"early stopping": stopping.patience is not None, "the choice of the epoch": stopping.restore_best}
    chosen = " and ".join(use for use, made in uses.items() if made)
    if test:
        alone = f"{chosen} went by validation alone" if chosen else "nothing in this run was chosen by validation"
        return f"The test set was looked at once, when training was over, {weights}; {alone}."
    flatters = f"{chosen} went by it too, so it flatters" if chosen else "nothing in this run was chosen by it"
    return f"The test set was not looked at. This is about the validation set, {weights}; {flatters}."


def augmented_rows(augmented: np.ndarray) -> list[str]:
    """What the rows of `Content.augmented` are."""
    return ["as it is", *(f"epoch {epoch}" for epoch in range(1, len(augmented)))]
