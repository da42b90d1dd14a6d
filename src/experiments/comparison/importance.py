"""Points -> the importance of each setting for the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.comparison.configurations import configuration_keys, configurations
from experiments.comparison.points import Point, swept_keys
from experiments.comparison.values import logarithmic, numbers
from experiments.config.data import FOLD_KEYS

POINTS, SETTINGS = 4, 2  # with fewer there is no result
TREES = 32


def importance(points: Sequence[Point], objective: str) -> dict[str, float] | None:
    """Setting -> fraction of the variance of the objective over configurations that it explains; the largest first, sum 1.

    fANOVA (Hutter et al., "An efficient approach for assessing hyperparameter importance", 2014) as in Optuna: a random
    forest learns the objective from the settings. Interactions are not separated. Seed and folds are no settings: they change
    by how much a result is due to chance. None with fewer than `POINTS` configurations that have a value or `SETTINGS` settings, with
    all equally good, or without Optuna.
    """
    found = [group for group in configurations(points, objective) if group.value(objective) is not None]
    keys = set(configuration_keys(points)) - {*FOLD_KEYS}
    swept = [key for key in swept_keys([point for group in found for point in group.finished]) if key in keys]
    columns = {key: [group.settings.get(key) for group in found] for key in swept}
    values = [value for group in found if (value := group.value(objective)) is not None]
    if len(found) < POINTS or len(columns) < SETTINGS or len(set(values)) == 1:
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
        axes = {key: _axis(column) for key, column in columns.items()}
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


def _axis(column: Sequence[str | None]) -> Sequence[Any]:
    """Numbers, or their logarithms if they span decades; anything else is a category."""
    found = numbers(column)
    if found is None:
        return column
    return [math.log10(number) for number in found] if logarithmic(found) else found
