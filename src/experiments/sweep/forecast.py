"""How long a multirun under way takes, in words: "18 to 26 min"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.config.durations import between
from experiments.config.wording import counted
from experiments.runs.clock import Clock
from experiments.sweep import times
from experiments.sweep.budget import Budget
from experiments.sweep.estimate import Cost, interval, remaining


@dataclass(frozen=True)
class Forecast:
    """The estimate of a multirun, from what its points have taken so far.

    Attributes:
        clock: of the multirun.
        points: their costs by their keys; of a search, whose points are not known, only the number; None if the results
            decide how many are trained to which epoch.
    """

    budget: Budget
    clock: Clock
    points: Mapping[str, Cost] | int | None

    @property
    def total(self) -> int | None:
        """The number of points."""
        return len(self.points) if isinstance(self.points, Mapping) else self.points

    def left(self) -> tuple[float, float] | None:
        """From and to how many seconds are left, with test and report; None before the first epoch, and after the last point."""
        if self.points is None:
            return None
        measured = times.read(self.budget.folder)
        running = [one for one in measured.values() if one.around is None]
        if not any(one.trained for one in measured.values()):
            return None
        if isinstance(self.points, int):
            waiting = [next(reversed(measured.values())).cost] * (self.points - len(measured))
        else:
            waiting = [cost for point, cost in self.points.items() if point not in measured]
        if not waiting and not running:
            return None
        known = list(measured.values())
        low, high = interval(remaining(known, waiting, self.budget.workers, self.budget.known))
        reserve = self.budget.reserve(measured)
        return low + reserve, high + reserve

    def whole(self, left: tuple[float, float]) -> tuple[float, float]:
        """The seconds of the whole multirun."""
        low, high = (one + self.clock.spent for one in left)
        return low, high

    def line(self, whole: tuple[float, float]) -> str:
        """One line about the whole multirun."""
        more = ", more than the budget" if whole[0] > self.budget.total else ""
        return f"estimate: {between(*whole)} for {counted(self.total or 0, 'point')}{more}"
