"""The learning rate of every step, as a fraction of `optimizer.lr`.

It is a function of the position in the run and has no state, so a resumed run continues exactly where it was.
"""

from __future__ import annotations

import math

from experiments.config.optimizers import (
    ConstantSettings,
    DecaySettings,
    PeakSettings,
    ScheduleSettings,
    StepsSettings,
)


def factor(settings: ScheduleSettings, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor of the learning rate at `step`, counted from 0 over all epochs; exactly `end` at the last step."""
    last = steps_per_epoch * epochs - 1
    if isinstance(settings, DecaySettings | PeakSettings) and step >= last:
        return settings.end
    between = _along_half_cosine if settings.along_cosine else _along_line
    if isinstance(settings, PeakSettings):
        top = settings.peak * last
        if step < top:
            return between(settings.start, 1.0, step / top)
        return between(1.0, settings.end, (step - top) / (last - top))
    assert isinstance(settings, ConstantSettings)
    warmup = settings.warmup * steps_per_epoch
    if step < warmup:
        return _along_line(settings.start, 1.0, step / warmup)
    if isinstance(settings, DecaySettings):
        return between(1.0, settings.end, (step - warmup) / (last - warmup))
    if isinstance(settings, StepsSettings):
        return settings.factor ** (step // (settings.every * steps_per_epoch))
    return 1.0


def _along_line(first: float, second: float, progress: float) -> float:
    return first + (second - first) * progress


def _along_half_cosine(first: float, second: float, progress: float) -> float:
    return second + (first - second) * (1 + math.cos(math.pi * progress)) / 2
