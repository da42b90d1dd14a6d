"""Selective prediction: below which probability a finished run says "unsure", so that its other answers have some accuracy.

rejection = find_rejection(run, 0.95)
rejection.rejects(0.61)                   # whether this probability of the predicted class is too low
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.config import UserError
from experiments.config.wording import percent
from experiments.runs.finished import FinishedRun, read_artifact
from experiments.runs.logged_model import damaged
from experiments.training.coverage import FILE, Coverage
from experiments.training.evaluation import wilson_interval

UNSURE = "unsure"


@dataclass(frozen=True)
class Rejection:
    """A threshold that was found on the validation images.

    Attributes:
        wanted: the accuracy that was asked for.
        threshold: the smallest probability of a predicted class that is an answer.
        coverage: the fraction of the validation images with such a probability.
        accuracy: of these.
        images: how many they are.
    """

    wanted: float
    threshold: float
    coverage: float
    accuracy: float
    images: int

    def rejects(self, probability: float) -> bool:
        return self.coverage < 1 and probability < self.threshold

    def __str__(self) -> str:
        low, high = wilson_interval(round(self.accuracy * self.images), self.images)
        interval = f"95 % interval {percent(max(low, 0))} to {percent(min(high, 1))}"
        measured = f"{percent(self.accuracy)} of {self.images:,} are correct ({interval})"
        if self.coverage == 1:
            return (
                f"--reject {self.wanted:g}: all validation images have that accuracy, so nothing is unsure: {measured}"
            )
        return (
            f"--reject {self.wanted:g}: unsure below a probability of {self.threshold:.4f}; of the validation images, "
            f"{percent(self.coverage)} are above, and {measured}"
        )


def find_rejection(run: FinishedRun, accuracy: float) -> Rejection:
    """The threshold above which the largest part of the run's validation images has at least this accuracy.

    Raises:
        UserError: no threshold reaches it, or the run has no table of thresholds.
    """
    asked = f"--reject {accuracy:g}: run {run.run_id[:8]}"
    if not run.has_artifact(FILE):
        why = "it was trained with evaluation.calibrate=false" if not run.config.evaluation.calibrate else ""
        raise UserError(
            f"{asked} has no {FILE}: {why or 'an earlier version made it'}; train it again with evaluation.calibrate=true"
        )
    try:
        table = Coverage.read(read_artifact(run, FILE))
    except ValueError as error:
        raise damaged(run.run_id, FILE, error) from None
    row = table.decided_at(accuracy)
    if row is None:
        best = int(table.accuracy.argmax())
        raise UserError(
            f"{asked}: no probability gives that accuracy on its validation images; the highest is {table.accuracy[best]:.4f}, "
            f"of the {percent(table.coverage[best])} with the largest probabilities"
        )
    threshold, share, right = (float(column[row]) for column in (table.threshold, table.coverage, table.accuracy))
    return Rejection(accuracy, threshold, share, right, int(table.images[row]))
