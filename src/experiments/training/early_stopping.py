"""Early stopping: the best epoch, and when training stops."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.config import EarlyStoppingSettings


class EarlyStopping:
    """Monitors one metric: remembers the best epoch, and decides when to stop."""

    def __init__(self, settings: EarlyStoppingSettings) -> None:
        self.settings = settings
        self.best_epoch = 0
        self.best = float("-inf")  # the metric times its sign, so that higher is better
        self.waited = 0  # epochs since the best one
        self.stopped = False

    def update(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch, counted from 1; True if training should stop after it."""
        value = metrics[self.settings.monitor] * self.settings.sign
        if value > self.best + (self.settings.min_delta if self.best_epoch else 0):
            self.best, self.best_epoch, self.waited = value, epoch, 0
        else:
            self.waited += 1
            self.stopped = self.settings.patience is not None and self.waited >= self.settings.patience
        return self.stopped

    def state_dict(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        vars(self).update(state)
