"""Points -> the importance of each setting for the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.comparison.points import Point, ranked, swept_keys
from experiments.comparison.values import logarithmic, numbers
from experiments.config.keys import repeats, repetition

POINTS, SETTINGS = 4, 2  # with fewer there is no result
TREES = 32


def importance(points: Sequence[Point], objective: str) -> dict[str, float] | None:
    """Setting -> fraction of the variance of the objective over finished points that it explains; the largest first, sum 1.

    fANOVA (Hutter et al., "An efficient approach for assessing hyperparameter importance", 2014) as in Optuna: a random
    forest learns the objective from the settings. Seed and fold are included only if several points have the same ones. Interactions
    are not separated. None with fewer than `POINTS` finished points or `SETTINGS` settings, with all points equally good, or
    without Optuna.
    """
    finished = [(point, point.value(objective)) for point in ranked(points, objective)]
    valued = [(point, value) for point, value in finished if value is not None and math.isfinite(value)]
    rows = [point for point, _ in valued]
    columns = {key: [point.settings.get(key) for point in rows] for key in swept_keys(rows)}
    if len({repetition(point.settings) for point in rows}) == len(rows):
        columns = {key: column for key, column in columns.items() if not repeats(key)}
    values = [value for _, value in valued]
    if len(rows) < POINTS or len(columns) < SETTINGS or len(set(values)) == 1:
        return None
    return _fanova(columns, values)


def _fanova(columns: Mapping[str, Sequence[str | None]], values: Sequence[float]) -> dict[str, float] | None:
    try:
        import optuna
    except ImportError:  # it is installed with the search, which a comparison does not need
        return None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        axes = {key: _axis(key, column) for key, column in columns.items()}
        spaces: dict[str, optuna.distributions.BaseDistribution] = {
            key: optuna.distributions.FloatDistribution(min(axis), max(axis))
            if isinstance(axis[0], float)
            else optuna.distributions.CategoricalDistribution(list(dict.fromkeys(axis)))
            for key, axis in axes.items()
        }
        for row, value in zip(zip(*axes.values()), values):
            settings = dict(zip(axes, row))
            study.add_trial(optuna.trial.create_trial(params=settings, distributions=spaces, value=value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
        fractions = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {key: float(fraction) for key, fraction in fractions.items()}
    except (RuntimeError, ValueError):  # such as a forest that found no variance at all
        return None
    finally:
        optuna.logging.set_verbosity(verbosity)


def _axis(key: str, column: Sequence[str | None]) -> Sequence[Any]:
    """Numbers, or their logarithms if they span decades; anything else, and seed and fold, is a category."""
    found = numbers(column) if not repeats(key) else None
    if found is None:
        return column
    return [math.log10(number) for number in found] if logarithmic(found) else found
