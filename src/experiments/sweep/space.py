"""The space of a search, from Hydra's words for it: choice(...), range(...), interval(...), tag(log, interval(...))."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from experiments.config import UserError

Space = Mapping[str, BaseDistribution]


def space(overrides: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """(what is searched, the overrides that are fixed).

    Raises:
        UserError: where nothing is searched, or a range holds nothing.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    swept = [str(override.input_line) for override in parsed if override.is_sweep_override()]
    if not swept:
        raise UserError("there is nothing to search: give a range, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
    found = {}
    for override in parsed:
        tags: set[str] = getattr(override.value(), "tags", set())
        if strange := tags - {"log"}:
            raise UserError(f"{override.input_line}: there is no tag {', '.join(strange)}; there is log")
    for text in swept:
        try:
            found.update(create_params_from_overrides([text])[0])
        except (ValueError, ArithmeticError) as error:
            raise UserError(f"{text}: is no range to search ({error})") from None
    return found, fixed


def first(distributions: Space) -> list[str]:
    """Some point of the space."""
    return [
        f"{key}={found.choices[0] if isinstance(found, CategoricalDistribution) else found.low}"  # type: ignore[attr-defined]
        for key, found in distributions.items()
    ]


def grid(distributions: Space) -> list[dict[str, Any]]:
    """Every combination.

    Raises:
        UserError: for a range without steps.
    """
    values: list[Sequence[Any]] = []
    for key, found in distributions.items():
        if isinstance(found, CategoricalDistribution):
            values.append(found.choices)
        elif isinstance(found, IntDistribution) and not found.log:
            values.append(range(found.low, found.high + 1, found.step))
        elif isinstance(found, FloatDistribution) and found.step:
            steps = round((found.high - found.low) / found.step)
            values.append([found.low + found.step * step for step in range(steps + 1)])
        else:
            raise UserError(f"{key}: has no end of values, so no grid holds them all; give choice(...) or range(...)")
    return [dict(zip(distributions, combination)) for combination in itertools.product(*values)]
