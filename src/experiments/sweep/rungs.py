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
from experiments.sweep.trials import LOSSES, SECONDS, is_cut_short, rung_of

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
        return self.around + (end - len(trial.user_attrs[SECONDS])) * trial.user_attrs[SECONDS][-1]


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

    def promoted(self, trials: Mapping[int, FrozenTrial], sign: int, time: Time | None = None) -> list[int]:
        """The points that go on to their next rung, when no trial is running.

        Without a budget, those are the best third. With one, as many as are expected to end in time go on; when they
        have ended earlier than expected, the next best follow.

        Args:
            trials: the last trial of each point.
            sign: 1 if higher values are better, -1 if lower ones are.
        """
        if time:
            found = (self._affordable(trials, rung, sign, time) for rung in reversed(range(len(self.ends))))
        else:
            found = (self._best(trials, rung, sign) for rung in range(len(self.ends)))
        return next(filter(None, found), [])

    def _best(self, trials: Mapping[int, FrozenTrial], rung: int, sign: int) -> list[int]:
        ranked = self._ranked(trials, rung, sign)
        best = ranked[: math.ceil(len(ranked) / self.reduction_factor)]
        return [point for point in best if _waits(trials[point], rung)]

    def _affordable(self, trials: Mapping[int, FrozenTrial], rung: int, sign: int, time: Time) -> list[int]:
        """The best that end in time, if one in `reduction_factor` of them goes on after the next rung."""
        room, chosen = time.left * time.workers, []
        for point in self._ranked(trials, rung, sign):
            trial = trials[point]
            if _waits(trial, rung):
                whole = expected = time.needed(trial, self.epochs)
                if next_end := self.end(rung + 1):
                    first = time.needed(trial, next_end)
                    whole += time.around  # it starts twice
                    expected = first + (whole - first) / self.reduction_factor
                if whole <= time.left and expected <= room:
                    chosen.append(point)
                    room -= expected
        return chosen

    def cut_short(self, trials: Mapping[int, FrozenTrial], sign: int, time: Time, first: bool = True) -> int | None:
        """The point that trains until the time is over, where no trial can end in time and none has; None without one.

        If not even another epoch fits, the `first` one is finished as it is, so that the search has a winner.
        """
        if time.left <= 0 or any(trial.state == TrialState.COMPLETE for trial in trials.values()):
            return None
        ranked = (point for rung in reversed(range(len(self.ends))) for point in self._ranked(trials, rung, sign))
        known = ((point, trials[point]) for point in ranked if trials[point].user_attrs.get(SECONDS))
        fitting = (
            point for point, one in known if first or time.needed(one, len(one.user_attrs[SECONDS]) + 1) <= time.left
        )
        return next(fitting, None)

    def fits(self, trial: FrozenTrial, time: Time) -> bool:
        """Whether a trial that was promoted, or interrupted, is expected to reach the end of its rung in time."""
        if is_cut_short(trial):
            return True
        end = self.end(rung_of(trial)) or self.epochs
        return (time.needed(trial, end) if trial.user_attrs.get(SECONDS) else 0.0) <= time.left

    def has_room(self, trials: Collection[FrozenTrial], time: Time) -> bool:
        """Whether a new trial may start: in the first share of the training time, and if one can train to its end after it.

        If no trial can, however few are started, the best one trains as long as the time lasts: see `cut_short`.
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


def _worst_if_nan(value: float) -> float:
    return value if math.isfinite(value) else math.inf
