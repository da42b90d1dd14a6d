"""The content of a comparison: points, objectives, the winner, and the significant differences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.comparison import ranking, significance
from experiments.comparison.configurations import Configuration, configurations, repeated, repeated_by
from experiments.comparison.points import Point, data_set_keys, on_other_images
from experiments.comparison.significance import Spread
from experiments.comparison.winner_command import WITHOUT_FOLDS, has_folds, training_command
from experiments.config import VIEWS
from experiments.config.command_line import Command
from experiments.config.wording import counted


@dataclass(frozen=True)
class Comparison:
    """What a comparison shows.

    Attributes:
        command: the command that made the points; None if they come from several.
        points: in the order they were run.
        objectives: metrics; the first one ranks.
        untested: which evaluation of the winner on the test set failed, and why; empty if none did.
    """

    title: str
    command: Command | None
    points: Sequence[Point]
    objectives: Sequence[str]
    untested: str = ""

    @functools.cached_property
    def configurations(self) -> list[Configuration]:
        """The best first; see `configurations`."""
        return configurations(self.points, self.objectives[0])

    @property
    def repeated(self) -> str:
        """What repeats the configurations: seeds, folds, or both; empty if there are no repetitions."""
        return repeated_by(self.points) if repeated(self.configurations) else ""

    @property
    def winner(self) -> Configuration | None:
        """The best configuration; None if no point finished."""
        return next((group for group in self.configurations if group.finished), None)

    @functools.cached_property
    def winner_command(self) -> str:
        """The command that trains the winner; empty without a winner, or if its configuration has changed since."""
        return training_command(self.command or Command(), self.winner) if self.winner else ""

    @property
    def winner_note(self) -> str:
        """What the command of the winner does that its runs did not; empty if it does the same."""
        return WITHOUT_FOLDS if self.winner_command and self.winner and has_folds(self.winner) else ""

    @property
    def test_accuracy(self) -> Spread | None:
        """The test accuracy of the winner; None if not all its finished runs were evaluated on the test set."""
        if not self.winner or any("test/loss" not in point.metrics for point in self.winner.finished):
            return None
        values = self.winner.values("test/accuracy").values()
        return Spread.of(values, "test/accuracy") if values else None

    @property
    def failed(self) -> bool:
        """A point failed, or the evaluation of the winner."""
        return self.count("failed") > 0 or self.untested != ""

    @property
    def tested(self) -> list[Point]:
        """The points that were evaluated on the test set."""
        return [point for point in self.points if "test/loss" in point.metrics]

    @property
    def statement(self) -> str:
        """How the test set was used, how predictions were made, and whether seeds or folds of the winner are missing."""
        return " ".join(filter(None, [self._test_set, self._note, self._missing]))

    @property
    def _test_set(self) -> str:
        if self.untested:
            return self.untested
        if not self.tested:
            return "The test set was not used."
        if self.objectives[0].startswith("test/"):
            return f"The ranking uses the test set ({self.objectives[0]}), so its best value is optimistic."
        evaluated = f"{len(self.tested)} of {counted(len(self.points), 'point')} {'was' if len(self.tested) == 1 else 'were'} evaluated on the test set"
        if self.winner and self.tested == self.winner.finished and self.test_accuracy:
            count, every = self.test_accuracy.n, len(self.tested) == len(self.points)
            runs = f"All {count}" if every else f"Only the winner's {count}"
            evaluated = f"{runs} {self.repeated} were" if count > 1 else "Only the winner was"
            evaluated += f" evaluated on the test set: accuracy {_written(self.test_accuracy)}"
        return f"{evaluated}. The ranking uses the validation set only."

    @property
    def _missing(self) -> str:
        if not self.winner or not self.repeated:
            return ""
        if (finished := len(self.winner.values(self.objectives[0]))) == self.winner.started:
            return ""
        return f"Only {finished} of {self.winner.started} {self.repeated} finished for the best configuration."

    @property
    def warning(self) -> str:
        """Why some points cannot be compared with the others; empty if all can."""
        if other := len(on_other_images(self.points)):
            return (
                f"{other} of {len(self.points)} points had other images than points with the same settings of the data: "
                "the files have changed, so these points cannot be compared"
            )
        if keys := data_set_keys(self.points):
            return (
                f"The points are of several data sets ({', '.join(keys)}), each with a validation set of its own: "
                "a better place in the ranking may only mean easier images"
            )
        return ""

    @property
    def _note(self) -> str:
        """How predictions were made; if points differ in that, the ranking has a column for it."""
        ways = {point.settings.get("evaluation.tta", "none") for point in self.points}
        count = len(VIEWS.get(ways.pop(), ())) if len(ways) == 1 else 1
        return f"Every prediction is the mean over {count} views of its image." if count > 1 else ""

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """See `ranking.table`."""
        return ranking.table(self.points, self.objectives)

    @functools.cached_property
    def over_seeds(self) -> pd.DataFrame | None:
        """See `significance.over_seeds`."""
        first, *others = dict.fromkeys([*self.objectives, "val/loss", "parameters", "seconds"])
        return significance.over_seeds(self.points, first, *others)

    @functools.cached_property
    def differences(self) -> pd.DataFrame | None:
        """See `significance.differences`."""
        return significance.differences(self.points, self.objectives[0])

    @functools.cached_property
    def front(self) -> list[Configuration]:
        """The Pareto-optimal configurations; none with a single objective."""
        return ranking.pareto(self.points, self.objectives) if len(self.objectives) > 1 else []

    def count(self, *statuses: str) -> int:
        return sum(point.status in statuses for point in self.points)


def _written(spread: Spread) -> str:
    """A mean as text, with what is known of its spread."""
    if spread.n == 1:
        return f"{spread.mean:.4f}"
    interval = f"; 95 % interval {spread.low:.4f} to {spread.high:.4f}" if spread.n >= significance.SEEDS else ""
    return f"{spread.mean:.4f} ± {spread.sd:.4f} (mean ± sd{interval})"
