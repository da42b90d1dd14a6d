"""The identity of a multirun: the configurations of its points, their images and weights, and the source code; not the words typed.

identify({"model.filters": ["model.filters=16", "model.filters=32"], "data": ["data=digits"]})   # 12 hexadecimal digits
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import Config, DataSettings, UserError
from experiments.config.keys import decisive_settings
from experiments.config.loading import compose_points
from experiments.data import load_splits
from experiments.runs.fingerprint import sources


def compose_values(choices: Mapping[str, Sequence[str]]) -> list[Config]:
    """One configuration per value, not per combination: a reference point, and those that differ from it in one key."""
    reference = {key: min(values) for key, values in choices.items()}
    changed = [{**reference, key: value} for key, values in choices.items() for value in values if len(values) > 1]
    return compose_points(sorted(point.values()) for point in [reference, *changed])


def identify(choices: Mapping[str, Sequence[str]], search: Mapping[str, Any] | None = None) -> str:
    """12 hexadecimal digits, equal for two multiruns if they compute the same points in the same MLflow experiment.

    Args:
        choices: {key: overrides to choose from}, in any order.
        search: what else decides the trials of a search.

    Raises:
        UserError: the images are missing, broken, or too few; or there are no such initial weights.
    """
    first, *others = compose_values(choices)

    @functools.cache
    def digest(data: DataSettings) -> str:
        return load_splits(data).digest

    configs = (first, *others)
    points = zip(configs, _weights(configs), strict=True)
    content = {
        "experiment": first.experiment,
        "points": sorted(
            {json.dumps([decisive_settings(one), digest(one.data), weights], sort_keys=True) for one, weights in points}
        ),
        "sources": [sources(target) for target in sorted({one.model.target for one in configs})],
        "search": search,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _weights(configs: Sequence[Config]) -> list[str | None]:
    """The digest of the initial weights of each point; None for random ones."""
    named = {(one.model.weights, one.model.title): one for one in configs if one.model.weights is not None}
    if not named:
        return [None] * len(configs)
    for which, _ in named:
        if which in ("run:best", "run:latest"):  # it may be another one when the next point starts
            raise UserError(
                f"model.weights={which}: in a multirun, name the run by its id, because the points are runs, too"
            )
    from experiments.runs.weights import initial_weights  # imports torch

    digests = {which: weights.digest() for which, one in named.items() if (weights := initial_weights(one))}
    return [digests[one.model.weights, one.model.title] if one.model.weights else None for one in configs]
