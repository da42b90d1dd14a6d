"""The content of a comparison: points, objectives, the winner, and the significant differences."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from experiments.comparison import ranking, significance
from experiments.comparison.points import Point, data_set_keys, on_other_images, ranked
from experiments.config import VIEWS, UserError
from experiments.config.arguments import search_path
from experiments.config.command_line import MASK, Command, mask_passwords
from experiments.config.keys import flatten, role_of, standalone_overrides
from experiments.config.loading import compose_config
from experiments.config.wording import counted


@dataclass(frozen=True)
class Comparison:
    """What a comparison shows.

    Attributes:
        command: the command that made the points; None if they come from several.
        points: in the order they were run.
        objectives: metrics; the first one ranks.
        untested: why the evaluation of the winner on the test set failed; empty if it did not.
    """

    title: str
    command: Command | None
    points: Sequence[Point]
    objectives: Sequence[str]
    untested: str = ""

    @property
    def winner(self) -> Point | None:
        """The best finished point; None if no point finished."""
        return next(iter(ranked(self.points, self.objectives[0])), None)

    @functools.cached_property
    def winner_command(self) -> str:
        """The command that trains the winner; empty without a winner, or if its configuration has changed since."""
        if not self.winner:
            return ""
        command = (self.command or Command()).single(standalone_overrides(self.winner.overrides))
        return str(command) if _trains(command, self.winner.settings) else ""

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
        """How the test set was used, how predictions were made, and whether seeds or folds of the best setting are missing."""
        missing = significance.unfinished_seeds(self.points, self.objectives[0])
        return " ".join(filter(None, [self._test_set, self._note, missing]))

    @property
    def _test_set(self) -> str:
        if self.untested:
            return f"The evaluation of the winner on the test set failed: {self.untested}."
        if not self.tested:
            return "The test set was not used."
        if self.objectives[0].startswith("test/"):
            return f"The ranking uses the test set ({self.objectives[0]}), so its best value is optimistic."
        evaluated = f"{len(self.tested)} of {counted(len(self.points), 'point')} {'was' if len(self.tested) == 1 else 'were'} evaluated on the test set"
        if self.tested == [self.winner]:
            accuracy = self.tested[0].metrics["test/accuracy"]
            evaluated = f"Only the winner was evaluated on the test set: accuracy {accuracy:.4f}"
        return f"{evaluated}. The ranking uses the validation set only."

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
        return significance.over_seeds(self.points, self.objectives[0])

    @functools.cached_property
    def differences(self) -> pd.DataFrame | None:
        """See `significance.differences`."""
        return significance.differences(self.points, self.objectives[0])

    @functools.cached_property
    def front(self) -> list[Point]:
        """The Pareto-optimal points; none with a single objective."""
        return ranking.pareto(self.points, self.objectives) if len(self.objectives) > 1 else []

    def count(self, *statuses: str) -> int:
        return sum(point.status in statuses for point in self.points)


def _trains(command: Command, settings: Mapping[str, str]) -> bool:
    """Whether a command has these settings today: conf/ may have changed since, or MLflow has cut the overrides."""
    overrides = [text for text in command.overrides if MASK not in text]  # passwords are not known here
    try:
        config = compose_config([*overrides, *search_path(command.config_dir)])
    except UserError:
        return False
    today = {key: mask_passwords(str(value)) for key, value in flatten(config.to_dict())}
    known = {key: mask_passwords(value) for key, value in settings.items() if role_of(key).identifies_multirun}
    return all(today.get(key, value) == value for key, value in known.items() if MASK not in value)
