"""How long the rest of a multirun takes, from what was measured so far: a pure function, without clock and files.

seconds = remaining(measured, left, workers=2)   # many possible values
low, high = interval(seconds)

Three quantities are uncertain: the seconds of an epoch (a regression on the work of an epoch, in logarithms), the number of
epochs where training may end early, and the seconds around the epochs. For each, values are drawn from the posterior of a
normal distribution (Gelman et al., Bayesian Data Analysis, 3rd edition, chapters 3 and 14), and the points that are left
are given to the workers in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 400
TAILS = (0.07, 0.93)  # of the draws; wider than 80 %, because machines change their speed
FIRST = 0.45  # seconds around the epochs of a later point of a process, as a part of those of its first one
SPEED = 0.1  # standard deviation of the logarithm of a later speed of the machine, over that so far


@dataclass(frozen=True)
class Cost:
    """What is known of a point before it starts.

    Attributes:
        work: multiply-adds of an epoch; only ratios between points matter.
        steps: of an epoch; only ratios matter.
        epochs: that it trains at most: fewer than training.epochs if it continues another run.
        least: that it trains at least: fewer than `epochs` if early stopping or a pruner may end it.
    """

    work: float
    steps: float
    epochs: int
    least: int


@dataclass(frozen=True)
class Measured:
    """A point that has trained at least one epoch.

    Attributes:
        epochs: that were trained so far.
        seconds: of these epochs.
        around: seconds around the epochs, for data, report and model; None until it has ended.
        trained: False if it was finished before and only found again.
    """

    cost: Cost
    epochs: int
    seconds: float
    around: float | None = None
    trained: bool = True


@dataclass(frozen=True)
class Normal:
    """A normal distribution with unknown mean and variance, before anything is measured.

    Attributes:
        mean: of each coefficient.
        sd: how far a coefficient may be from its mean, as a multiple of `spread`.
        spread: of the values around their mean.
        weight: number of values that `spread` counts as.
    """

    mean: Sequence[float]
    sd: Sequence[float]
    spread: float
    weight: float = 4.0

    def draw(self, features: Floats, values: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """(coefficients (DRAWS, n), standard deviations (DRAWS, 1)) after `values` were measured at `features`."""
        import numpy as np

        mean, precision = np.array(self.mean), np.diag(1 / np.array(self.sd) ** 2)
        after = precision + features.T @ features
        center = np.linalg.solve(after, precision @ mean + features.T @ values)
        error = values @ values + mean @ precision @ mean - center @ after @ center
        scale = (self.weight * self.spread**2 + max(error, 0.0)) / 2
        variance = scale / rng.gamma((self.weight + len(values)) / 2, size=(DRAWS, 1))
        noise = np.linalg.solve(np.linalg.cholesky(after).T, rng.standard_normal((len(mean), DRAWS))).T
        return center + np.sqrt(variance) * noise, np.sqrt(variance)


AROUND = Normal((math.log(2.0),), (1.0,), 0.4)
# Log seconds: a constant, log work, log steps.
PER_EPOCH = Normal((0.0, 0.65, 0.35), (100.0, 2.0, 2.0), 0.15, weight=8.0)
PER_EPOCH_UNKNOWN = Normal((0.0,), (100.0,), 0.5)  # where the work of the points that are left is not known


def remaining(measured: Sequence[Measured], left: Sequence[Cost], workers: int, known: bool = True) -> Floats:
    """Possible seconds until all points have ended, (DRAWS,).

    Args:
        measured: at least one point.
        left: the points that have not started, in the order in which they start.
        known: their work is known; in a search it is not, before a trial starts.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    running = [one for one in measured if one.around is None]
    costs = [*(one.cost for one in running), *left]
    if not costs:
        return np.zeros(DRAWS)
    seconds = _seconds_per_epoch(measured, costs, known, rng)
    for column, one in enumerate(running):
        seconds[:, column] = one.seconds / one.epochs
    trained = np.array([one.epochs for one in running] + [0] * len(left))
    epochs = np.maximum(_epochs(measured, costs, rng) - trained, 0)
    epochs[:, : len(running)] = np.where(
        trained[: len(running)] < [one.cost.epochs for one in running], np.maximum(epochs[:, : len(running)], 1), 0
    )
    points = epochs * seconds + _around(measured, workers, len(costs), rng)
    elapsed = seconds[:, : len(running)] * rng.random((DRAWS, len(running)))  # of the epoch that is running
    points[:, : len(running)] -= np.where(epochs[:, : len(running)] > 0, elapsed, 0.0)
    return _finish(points, len(running), workers) * np.exp(SPEED * rng.standard_normal(DRAWS))


def expected(measured: Sequence[Measured], cost: Cost, workers: int = 1, known: bool = True) -> float:
    """The seconds that a point takes as likely as not; 0 before anything is measured."""
    import numpy as np

    if not measured:
        return 0.0
    rng = np.random.default_rng(0)
    seconds, epochs = _seconds_per_epoch(measured, [cost], known, rng), _epochs(measured, [cost], rng)
    return float(np.median(epochs * seconds + _around(measured, workers, 1, rng)))


def interval(seconds: Floats) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(seconds, TAILS)
    return float(low), float(high)


def _seconds_per_epoch(
    measured: Sequence[Measured], costs: Sequence[Cost], known: bool, rng: np.random.Generator
) -> Floats:
    import numpy as np

    base = measured[0].cost

    def features(points: Sequence[Cost]) -> Floats:
        rows = [[1.0, math.log(one.work / base.work), math.log(one.steps / base.steps)] for one in points]
        return np.array(rows)[:, : 3 if known else 1]

    before = PER_EPOCH if known else PER_EPOCH_UNKNOWN
    values = np.log([max(one.seconds, 1e-6) / one.epochs for one in measured])
    coefficients, spread = before.draw(features([one.cost for one in measured]), values, rng)
    means = coefficients @ features(costs).T
    if known:  # a larger network than all so far may take as many times as long as it has more multiply-adds
        beyond = np.maximum(features(costs)[:, 1] - features([one.cost for one in measured])[:, 1].max(), 0.0)
        means = means + rng.random((DRAWS, 1)) * (1 - coefficients[:, 1:2]) * beyond
    return np.exp(means + spread * rng.standard_normal(means.shape))


def _epochs(measured: Sequence[Measured], costs: Sequence[Cost], rng: np.random.Generator) -> Floats:
    """Where training may end early: a logarithm between that of the least and that of the most epochs."""
    import numpy as np

    least, most = (np.array([getattr(one, name) for one in costs]) for name in ("least", "epochs"))
    low, high = math.log(least.min()), math.log(most.max())
    ended = [one for one in measured if one.around is not None and one.cost.least < one.cost.epochs]
    # a point that has trained all its epochs would have trained more
    values = np.log([one.epochs * (1.25 if one.epochs == one.cost.epochs else 1) for one in ended])
    before = Normal(((low + high) / 2,), (1.0,), max((high - low) / 4, 0.05))
    means, spread = before.draw(np.ones((len(ended), 1)), values, rng)
    drawn: Floats = np.exp(means + spread * rng.standard_normal((DRAWS, len(costs))))
    return np.clip(np.rint(drawn), least, most)


def around(measured: Iterable[Measured], workers: int) -> list[float]:
    """The seconds around the epochs of points; the first point of every worker also imports the libraries."""
    seconds = [one.around for one in measured if one.around is not None and one.trained]
    return seconds[workers:] or [FIRST * one for one in seconds]


def _around(measured: Sequence[Measured], workers: int, points: int, rng: np.random.Generator) -> Floats:
    import numpy as np

    seconds = around(measured, workers)
    means, spread = AROUND.draw(np.ones((len(seconds), 1)), np.log(np.maximum(seconds, 1e-2)), rng)
    return np.exp(means + spread * rng.standard_normal((DRAWS, points)))


def _finish(points: Floats, running: int, workers: int) -> Floats:
    """When the last worker ends: each running point has a worker, and every other point goes to the first that is free."""
    import numpy as np

    busy = np.zeros((len(points), max(workers, running, 1)))
    busy[:, :running] = points[:, :running]
    rows = np.arange(len(points))
    for column in range(running, points.shape[1]):
        busy[rows, busy.argmin(axis=1)] += points[:, column]
    return busy.max(axis=1)
