"""The learning rate at every step, as a share of `optimizer.lr`: a function of the position alone.

It has no state, so a run that is continued goes on exactly where it was.
"""

from __future__ import annotations

import math

from experiments import config


def factor(settings: config.ScheduleSettings, step: int, steps_an_epoch: int, epochs: int) -> float:
    """The share of the learning rate at `step`, counted from 0 over all epochs; at the last step exactly `end`."""
    last = steps_an_epoch * epochs - 1
    if isinstance(settings, config.DecaySettings | config.PeakSettings) and step >= last:
        return settings.end
    share = _along_half_cosine if settings.name in ("cosine", "onecycle") else _along_line
    if isinstance(settings, config.PeakSettings):
        top = settings.peak * last
        if step < top:
            return share(settings.start, 1.0, step / top)
        return share(1.0, settings.end, (step - top) / (last - top))
    assert isinstance(settings, config.ConstantSettings)
    rise = settings.warmup * steps_an_epoch
    if step < rise:
        return _along_line(settings.start, 1.0, step / rise)
    if isinstance(settings, config.DecaySettings):
        return share(1.0, settings.end, (step - rise) / (last - rise))
    if isinstance(settings, config.StepsSettings):
        return settings.factor ** (step // (settings.every * steps_an_epoch))
    return 1.0


def _along_line(first: float, second: float, progress: float) -> float:
    return first + (second - first) * progress


def _along_half_cosine(first: float, second: float, progress: float) -> float:
    return second + (first - second) * (1 + math.cos(math.pi * progress)) / 2
