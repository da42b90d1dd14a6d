"""Early stopping: the best epoch, and when training stops."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.config import EarlyStoppingSettings


class EarlyStopping:
    """Monitors one metric: remembers the best epoch, and decides when to stop.

    Epochs before `first` do not count for the patience. `min_delta` matters only for stopping: an epoch that is better by less is the best one, but does not restart the patience.
    """

    def __init__(self, settings: EarlyStoppingSettings, first: int = 1) -> None:
        self.settings = settings
        self.first = first
        self.best_epoch = 0
        self.best = float("-inf")  # the metric times its sign, so that higher is better
        self.improved = float("-inf")  # the value that the last improvement of more than min_delta reached
        self.waited = 0  # epochs since then
        self.stopped = False

    def update(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch, counted from 1; True if training should stop after it."""
        value = metrics[self.settings.monitor] * self.settings.sign
        if value > self.best:
            self.best, self.best_epoch = value, epoch
        if value > self.improved + self.settings.min_delta:
            self.improved, self.waited = value, 0
        elif epoch >= self.first:
            self.waited += 1
            self.stopped = self.settings.patience is not None and self.waited >= self.settings.patience
        return self.stopped

    def state_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name not in ("settings", "first")}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        vars(self).update(state)
