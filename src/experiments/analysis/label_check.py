"""Labels that are probably wrong: by networks that were trained without the image, and by near duplicates of other classes.

The ranking is cleanlab's (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.analysis.duplicates import Pair, find_duplicates
from experiments.config import DataSettings
from experiments.data import Images, load_splits
from experiments.data.images import joined
from experiments.runs import evaluations
from experiments.runs.finished import FinishedRun


@dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
        index: in the images of the check.
        score: quality of the label, from 0 (certainly wrong) to 1.
        suggested: the class that the networks predict, with its `probability`; `of_given` is that of the given label.
    """

    index: int
    given: str
    suggested: str
    score: float
    probability: float
    of_given: float


@dataclass(frozen=True)
class LabelCheck:
    """What was found.

    Attributes:
        images: all images of the data, training images first.
        splits: train or test, for each of them.
        probabilities: by networks that were not trained on the image, float32 (N, classes); NaN for images that no fold holds out.
        suspects: the most suspicious first.
        pairs: near duplicates with different labels, the most similar first; `pair_count` of them were found.
        skipped: pictures that cannot be read, each with what is wrong.
    """

    images: Images
    splits: tuple[str, ...]
    probabilities: np.ndarray
    suspects: tuple[Suspect, ...]
    pairs: tuple[Pair, ...]
    pair_count: int
    skipped: tuple[str, ...]

    @property
    def checked(self) -> np.ndarray:
        """Whether each image has probabilities, bool (N,)."""
        return ~np.isnan(self.probabilities[:, 0])

    @property
    def accuracy(self) -> float:
        """The fraction of the checked training images whose given label is predicted."""
        chosen = self.checked & (np.array(self.splits) == "train")
        return float((self.probabilities[chosen].argmax(1) == self.images.labels[chosen]).mean())

    @functools.cached_property
    def places(self) -> dict[tuple[str, str], int]:
        """(train or test, name) of an image -> its index."""
        return _places(self.images, self.splits)

    def indices(self, pair: Pair) -> tuple[int, int]:
        """The indices of two duplicates."""
        first, second = (
            ("test" if place.split == "test" else "train", place.name) for place in (pair.first, pair.second)
        )
        return self.places[first], self.places[second]


def _places(images: Images, splits: Sequence[str]) -> dict[tuple[str, str], int]:
    return {key: index for index, key in enumerate(zip(splits, images.names))}


def check_labels(
    folds: Sequence[FinishedRun], data: Sequence[DataSettings], similarity: float, test: bool
) -> LabelCheck:
    """Check the labels of the training images, and with `test` those of the test images.

    Args:
        folds: the run of each fold.
        data: its settings of the data.
        similarity: of near duplicates, see `find_duplicates`.
    """
    whole = load_splits(data[0], keep_copies=True)
    images = joined(list(whole.parts().values()))
    splits = tuple(["train"] * (len(images) - len(whole.test)) + ["test"] * len(whole.test))
    probabilities = _probabilities(folds, data, images, splits, test)
    found = find_duplicates(whole, similarity, of_two_classes=True)
    suspects = tuple(find_suspects(images, probabilities))
    count = found.count(True) + found.count(False)
    pairs = tuple(sorted(found.pairs, key=lambda pair: -pair.similarity))
    return LabelCheck(images, splits, probabilities, suspects, pairs, count, whole.skipped)


def _probabilities(
    folds: Sequence[FinishedRun], data: Sequence[DataSettings], images: Images, splits: Sequence[str], test: bool
) -> np.ndarray:
    """Probabilities of every image by the networks that were not trained on it, see `LabelCheck`."""
    place = _places(images, splits)
    found = np.full((len(images), len(images.classes)), np.nan, dtype=np.float32)
    of_test = np.array(splits) == "test"
    sums = np.zeros((int(of_test.sum()), len(images.classes)), dtype=np.float32)
    for run, settings in zip(folds, data, strict=True):
        held_out = load_splits(settings).validation
        found[[place["train", name] for name in held_out.names]] = run.probabilities(held_out)
        if test:
            evaluations.count_label_check(run, images[of_test].digest)
            sums += run.probabilities(images[of_test])
    if test:
        found[of_test] = sums / len(folds)
    return found


def find_suspects(images: Images, probabilities: np.ndarray) -> list[Suspect]:
    """The images whose labels are probably wrong, the most suspicious first, by cleanlab's default choice and ranking."""
    from cleanlab.filter import find_label_issues  # an extra, whose import takes a second
    from cleanlab.rank import get_label_quality_scores

    checked = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    given, predicted = images.labels[checked], probabilities[checked].astype(np.float64)
    issues = find_label_issues(given, predicted, n_jobs=1)
    scores = get_label_quality_scores(given, predicted)
    order = np.flatnonzero(issues)[np.argsort(scores[issues], kind="stable")]
    return [
        Suspect(
            int(checked[row]),
            images.classes[given[row]],
            images.classes[predicted[row].argmax()],
            float(scores[row]),
            float(predicted[row].max()),
            float(predicted[row, given[row]]),
        )
        for row in order
    ]
