"""The time of a multirun: `sweep.budget`.

budget = Budget.start(config, folder)
budget.left()              # seconds of training that remain; infinite without a budget
budget.fits(cost, point)   # whether a point is expected to end in time
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.comparison.points import Point
from experiments.config import Config
from experiments.config.command_line import process_start
from experiments.config.durations import seconds
from experiments.config.wording import counted
from experiments.runs.clock import Clock
from experiments.sweep import times
from experiments.sweep.estimate import Cost, Measured, around, expected

SPENT = "seconds"  # the file in the folder of a multirun that has the seconds of all its commands
USED_UP = "the budget was used up"
MARGIN = 0.02  # of the budget, because no estimate is exact
# Measured at the end of multiruns of 3 to 100 points; a machine that takes longer than `AROUND` seconds around the epochs of
# a point is slower here, too:
AROUND = 2.0
COMPARISON, IMPORTS, PER_POINT = 1.0, 1.0, 0.03  # seconds of ranking, figures and report: the imports if others train
TEST, EVALUATION = 0.8, 0.15  # of the winner: a part of the seconds around its epochs, and of those of an epoch
LAUNCH = 0.6  # seconds per test to start it in another process


@dataclass(frozen=True)
class Budget:
    """The end of a multirun; can be sent to the workers, also of another machine.

    Attributes:
        folder: of the multirun.
        total: seconds of the budget; infinite without one.
        end: in seconds since 1970.
        workers: that train points at the same time.
        known: the work of a point is known before it starts.
        tests: the winner is tested at the end.
        tracked: MLflow has the results of the points that have ended, so that they need not be asked for them.
    """

    folder: Path
    total: float
    end: float
    workers: int = 1
    known: bool = True
    tests: bool = True
    tracked: bool = True

    @classmethod
    def start(cls, config: Config, folder: Path, workers: int = 1, known: bool = True) -> Budget:
        """The budget of this command: what earlier commands of the multirun have spent is not in it."""
        clock, total = multirun_clock(config, folder), seconds(config.sweep.budget)
        tests, tracked = config.evaluate_test is None, config.tracking.uri is not None
        return cls(folder, total, clock.started + total - clock.before, workers, known, tests, tracked)

    @property
    def limited(self) -> bool:
        return math.isfinite(self.total)

    def left(self) -> float:
        """The seconds that remain for training: until the end, without those for test, ranking and report."""
        return self._left(times.read(self.folder)) if self.limited else self.total

    def _left(self, measured: Mapping[str, Measured]) -> float:
        return self.end - time.time() - self.reserve(measured) - MARGIN * self.total

    def reserve(self, measured: Mapping[str, Measured]) -> float:
        """The seconds for test, ranking, figures and report. All seeds of the winner are tested."""
        points, usual = measured.values(), self.around(measured)
        longest = max((one.seconds / one.epochs for one in points), default=0.0)
        imports = IMPORTS if self.workers > 1 else 0.0
        comparison = (COMPARISON + imports + PER_POINT * len(points)) * max(1.0, usual / AROUND)
        tests = max(Counter(map(times.without_repetition, measured)).values(), default=1) if self.tests else 0
        launch = LAUNCH if self.workers > 1 else 0.0
        return tests * (TEST * usual + EVALUATION * longest + launch) + comparison

    def around(self, measured: Mapping[str, Measured]) -> float:
        """The usual seconds around the epochs of a point."""
        return statistics.median(around(measured.values(), self.workers) or [AROUND])

    def fits(self, cost: Cost, point: str = "") -> bool:
        """Whether a point is expected to end in time; before anything was measured, whether any time is left."""
        if not self.limited:
            return True
        measured = times.read(self.folder)
        return self._needed(measured, cost, point) <= self._left(measured)

    @property
    def has_room(self) -> bool:
        """Whether a point like those so far is expected to end in time."""
        measured = list(times.read(self.folder).values()) if self.limited else []
        return self.fits(measured[-1].cost if measured else Cost(1, 1, 1, 1))

    def _needed(self, measured: Mapping[str, Measured], cost: Cost, point: str) -> float:
        """The seconds that a point is expected to take."""
        if is_ended(measured.get(point)):
            return 0.0 if self.tracked else -math.inf
        return expected(list(measured.values()), cost, self.workers, self.known)

    def batches(self, points: Mapping[str, Cost]) -> Iterator[list[str]]:
        """The points to start: first one for each worker, then as many as are expected to fit; all without a budget.

        A launcher takes a while for each point that it is given, also for one that is not started then.
        """
        waiting = dict(points) if self.limited else {}
        if not self.limited and points:
            yield list(points)
        while waiting:
            measured = times.read(self.folder)
            left, needed = self._left(measured), dict[Cost, float]()
            batch, room = list[str](), self.workers * left
            for point, cost in waiting.items():
                if cost not in needed:
                    needed[cost] = self._needed(measured, cost, "")
                takes = self._needed(measured, cost, point) if is_ended(measured.get(point)) else needed[cost]
                if takes <= left and (room > 0 if measured else len(batch) < self.workers):
                    batch.append(point)
                    room -= max(takes, 0.0)
            if not batch:
                return
            yield batch
            waiting = {point: cost for point, cost in waiting.items() if point not in batch}

    def ends_after(self, stopwatch: times.Stopwatch) -> bool:
        """Whether another epoch as long as the last one does not fit, with report and model, which take about as long as the start."""
        return self.limited and stopwatch.last + TEST * stopwatch.before > self.left()

    def tell(self, outcomes: Sequence[Point], waiting: int = 0) -> None:
        """Print how many points the budget has left; `waiting`: those of a search that were not started."""
        waiting += sum(point.status == "not started" for point in outcomes)
        stopped = sum(point.status == "killed" for point in outcomes)
        parts = [counted(waiting, "point was", "points were") + " not started"] if waiting else []
        parts += [counted(stopped, "point was", "points were") + " stopped after an epoch"] if stopped else []
        if parts:
            from experiments.reports.terminal import console  # imports torch

            console.print(f"{USED_UP}: {', '.join(parts)}; the same command with a larger sweep.budget goes on")


def multirun_clock(config: Config, folder: Path) -> Clock:
    """The clock of a multirun: it counts from the start of this process."""
    return Clock(folder / SPENT, process_start(), anew=not config.resume)


def is_ended(measured: Measured | None) -> bool:
    return measured is not None and measured.around is not None
