"""Successive halving that trains nothing twice: hydra/sweeper/pruner=rungs.

All trials train one epoch; the best third of them go on to a third of the epochs, and the best third of these to the end
(Jamieson and Talwalkar, arXiv:1502.07943; one epoch tells much: Egele et al., arXiv:2307.15422). A trial that waits at a
rung is a pruned run; when it is promoted, the same run continues from its checkpoint, with the same configuration.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from experiments.sweep import times
from experiments.sweep.budget import Budget
from experiments.sweep.trials import LOSSES, SECONDS, is_last, rung_of

FIRST_SHARE = 1 / 3  # of the training time, in which new trials are started


@dataclass(frozen=True)
class Time:
    """The time that is left for training.

    Attributes:
        left: seconds.
        workers: that train at the same time.
        around: seconds around the epochs of a trial.
    """

    left: float
    workers: int
    around: float

    @classmethod
    def of(cls, budget: Budget) -> Time:
        return cls(budget.left(), budget.workers, budget.around(times.read(budget.folder)))

    def needed(self, trial: FrozenTrial, end: int) -> float:
        """The seconds until the end of an epoch of a trial that waits."""
        return self.around + (end - _epochs(trial)) * trial.user_attrs[SECONDS][-1]


@dataclass(frozen=True)
class Rungs:
    """The epochs after which trials are compared.

    Args:
        epochs: of a trial that reaches the end.
        reduction_factor: one trial in this many is promoted.
    """

    epochs: int
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        if type(self.reduction_factor) is not int or self.reduction_factor < 2:
            raise ValueError(f"reduction_factor={self.reduction_factor}: must be a whole number of at least 2")

    @property
    def ends(self) -> list[int]:
        """The last epoch of each rung but the last, which ends with the training; none for a single epoch."""
        return sorted(end for end in {1, round(self.epochs / self.reduction_factor)} if 0 < end < self.epochs)

    def end(self, rung: int) -> int | None:
        """The epoch after which a trial waits; None if it trains to its end."""
        return self.ends[rung] if rung < len(self.ends) else None

    def promoted(
        self, trials: Mapping[int, FrozenTrial], sign: int, time: Time | None = None, finishing: Collection[int] = ()
    ) -> Mapping[int, bool]:
        """The points that go on when no trial is running, and whether they train as long as the time lasts.

        Without a time, those are the best third of a rung. With one, see `_in_time`; those of the highest rung go on first.

        Args:
            trials: the last trial of each point.
            sign: 1 if higher values are better, -1 if lower ones are.
            finishing: points that have trained as long as the time lasted.
        """
        rungs = range(len(self.ends))
        if time is None:
            found = (self._best(self._ranked(trials, rung, sign), trials, rung) for rung in rungs)
            return dict.fromkeys(next(filter(None, found), []), False)
        for rung in reversed(rungs):
            if chosen := self._in_time(trials, rung, sign, time, finishing):
                return dict.fromkeys(chosen, self.end(rung + 1) is None)
        return dict.fromkeys([] if finishing else self._cut_short(trials, sign, time), True)

    def _best(self, ranked: list[int], trials: Mapping[int, FrozenTrial], rung: int, least: int = 1) -> list[int]:
        """Those of the best third, but at least of the `least` best, that wait."""
        best = ranked[: max(math.ceil(len(ranked) / self.reduction_factor), least)]
        return [point for point in best if _waits(trials[point], rung)]

    def _in_time(
        self, trials: Mapping[int, FrozenTrial], rung: int, sign: int, time: Time, ended: Collection[int]
    ) -> list[int]:
        """The best third of a rung, or the next best ones after them, as far as they are expected to end in time.

        If not one of them is, the best go on all the same, if their next rung ends in time: training to the end stops when
        the time is over. A worse trial that is faster must not win because a better one does not fit.
        """
        ranked = self._ranked(trials, rung, sign)
        best = [point for point in self._best(ranked, trials, rung, time.workers) if point not in ended]
        waiting = best or [point for point in ranked if _waits(trials[point], rung) and point not in ended]
        if found := self._affordable(waiting, trials, rung, time):
            return found
        known = ((point, self.end(rung + 1) or _epochs(trials[point]) + 1) for point in waiting)
        return [point for point, end in known if time.needed(trials[point], end) <= time.left][: time.workers]

    def _affordable(
        self, waiting: Collection[int], trials: Mapping[int, FrozenTrial], rung: int, time: Time
    ) -> list[int]:
        """Those that end in time, if one in `reduction_factor` of them goes on after the next rung."""
        room, chosen = time.left * time.workers, []
        for point in waiting:
            trial = trials[point]
            whole = expected = time.needed(trial, self.epochs)
            if next_end := self.end(rung + 1):
                first = time.needed(trial, next_end)
                whole += time.around  # it starts twice
                expected = first + (whole - first) / self.reduction_factor
            if whole <= time.left and expected <= room:
                chosen.append(point)
                room -= expected
        return chosen

    def _cut_short(self, trials: Mapping[int, FrozenTrial], sign: int, time: Time) -> list[int]:
        """The best points, one per worker, where none can reach its next rung in time and none has ended.

        If not even another epoch fits, the best one is finished as it is, so that the search has a winner.
        """
        if time.left <= 0 or any(trial.state == TrialState.COMPLETE for trial in trials.values()):
            return []
        ranked = (point for rung in reversed(range(len(self.ends))) for point in self._ranked(trials, rung, sign))
        known = [point for point in dict.fromkeys(ranked) if trials[point].user_attrs.get(SECONDS)]
        fitting = [point for point in known if time.needed(trials[point], _epochs(trials[point]) + 1) <= time.left]
        return fitting[: time.workers] or known[:1]

    def fits(self, trial: FrozenTrial, time: Time) -> bool:
        """Whether a trial that was promoted, or interrupted, is expected to reach the end of its rung in time.

        For one that trains as long as the time lasts, whether another epoch is.
        """
        if not trial.user_attrs.get(SECONDS):
            return time.left >= 0
        end = _epochs(trial) + 1 if is_last(trial) else self.end(rung_of(trial)) or self.epochs
        return time.needed(trial, end) <= time.left

    def has_room(self, trials: Collection[FrozenTrial], time: Time) -> bool:
        """Whether a new trial may start: in the first share of the training time, and if one can train to its end after it.

        If no trial can, however few are started, the best one trains as long as the time lasts.
        """
        known = [(rung_of(trial), trial.user_attrs[SECONDS]) for trial in trials if trial.user_attrs.get(SECONDS)]
        if not known:
            return time.left > 0
        epoch = statistics.median(seconds[-1] for _, seconds in known)
        first = sum(time.around + seconds[0] for _, seconds in known)
        spent = sum((rung + 1) * time.around + sum(seconds) for rung, seconds in known)
        new, whole = time.around + epoch, time.around + (self.epochs - 1) * epoch
        can_end = new + whole <= time.left or new + whole > spent / time.workers + time.left
        return first + new <= FIRST_SHARE * (spent + time.workers * time.left) and can_end

    def _ranked(self, trials: Mapping[int, FrozenTrial], rung: int, sign: int) -> list[int]:
        """The points that have reached the end of a rung, the best first; of equal ones that with the lower loss."""
        keys = {}
        for point, trial in trials.items():
            if trial.state == TrialState.COMPLETE or (trial.state == TrialState.PRUNED and rung_of(trial) >= rung):
                epoch = max((one for one in trial.intermediate_values if one <= self.ends[rung]), default=None)
                value = trial.intermediate_values[epoch] if epoch else math.nan
                loss = trial.user_attrs[LOSSES][epoch - 1] if epoch else math.nan
                keys[point] = (_worst_if_nan(-sign * value), _worst_if_nan(loss), point)
        return sorted(keys, key=lambda point: keys[point])


def _waits(trial: FrozenTrial, rung: int) -> bool:
    return trial.state == TrialState.PRUNED and rung_of(trial) == rung


def _epochs(trial: FrozenTrial) -> int:
    """The epochs that a trial has trained."""
    return len(trial.user_attrs[SECONDS])


def _worst_if_nan(value: float) -> float:
    return value if math.isfinite(value) else math.inf
