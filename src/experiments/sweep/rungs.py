"""Successive halving that trains nothing twice: hydra/sweeper/pruner=rungs.

All trials train one epoch; the best third of them go on to a third of the epochs, and the best third of these to the end
(Jamieson and Talwalkar, arXiv:1502.07943; one epoch tells much: Egele et al., arXiv:2307.15422). A trial that waits at a
rung is a pruned run; when it is promoted, the same run continues from its checkpoint, with the same configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

LOSSES = "val/loss"  # attribute of a trial: the validation loss of each epoch, which decides ties


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

    def promoted(self, trials: Mapping[int, FrozenTrial], sign: int) -> list[int]:
        """The points that go on to their next rung, when no trial is running; those of the lowest rung first.

        Args:
            trials: the last trial of each point.
            sign: 1 if higher values are better, -1 if lower ones are.
        """
        for rung in range(len(self.ends)):
            ranked = self._ranked(trials, rung, sign)
            best = ranked[: math.ceil(len(ranked) / self.reduction_factor)]
            if waiting := [point for point in best if _waits(trials[point], rung)]:
                return waiting
        return []

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


def rung_of(trial: FrozenTrial) -> int:
    """The rung at whose end a trial waits, or that it is on."""
    return int(trial.user_attrs.get("rung", 0))


def _waits(trial: FrozenTrial, rung: int) -> bool:
    return trial.state == TrialState.PRUNED and rung_of(trial) == rung


def _worst_if_nan(value: float) -> float:
    return value if math.isfinite(value) else math.inf
