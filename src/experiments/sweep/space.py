"""The space of a search, from Hydra's sweep syntax: choice(...), range(...), interval(...), tag(log, interval(...))."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from experiments.config import UserError
from experiments.config.overrides import as_meant

Space = Mapping[str, BaseDistribution]


def parse_space(overrides: Sequence[str]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """(distributions of the keys that are searched, the other overrides).

    Raises:
        UserError: nothing is searched, or a range is empty.
    """
    space, fixed = {}, []
    for override in OverridesParser.create().parse_overrides([as_meant(text) for text in overrides]):
        text = str(override.input_line)
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        tags: set[str] = getattr(override.value(), "tags", set())
        if unknown := tags - {"log"}:
            raise UserError(f"{text}: there is no tag {', '.join(unknown)}; the only tag is log")
        try:
            space[override.get_key_element()] = _distribution(override)
        except (ValueError, ArithmeticError, HydraException) as error:
            raise UserError(f"{text}: is not a search range ({error})") from None
    if not space:
        raise UserError("there is nothing to search: give a range, such as 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
    return space, fixed


def fitting(spaces: Any, composed: DictConfig) -> dict[str, str]:
    """The ranges of the spaces that fit a composed configuration, {key: range}; see conf/search/auto.yaml.

    Raises:
        UserError: a space is not a group of `params` and perhaps `when`.
    """
    found: dict[str, Any] = {}
    for space in spaces:
        if not isinstance(space, Mapping) or {"params"} - set(space) or set(space) - {"params", "when"}:
            raise UserError(f"hydra.sweeper.spaces={space}: must be {{when: {{key: value}}, params: {{key: range}}}}")
        if all(_holds(OmegaConf.select(composed, key), wanted) for key, wanted in space.get("when", {}).items()):
            found |= space["params"]
    return {key: _range(key, value, composed) for key, value in found.items() if value is not None}


def _holds(value: Any, wanted: Any) -> bool:
    return value != wanted["not"] if isinstance(wanted, Mapping) else value == wanted


def _range(key: str, value: Any, composed: DictConfig) -> str:
    """A range as it is typed; `times` are factors of the configured value."""
    if not isinstance(value, Mapping):
        return str(value)
    configured = OmegaConf.select(composed, key)
    low, high = (float(f"{configured * factor:.6g}") for factor in value["times"])
    if isinstance(configured, int):
        return f"tag(log,int(interval({max(1, int(low))},{int(high)})))"
    return f"tag(log,interval({low},{high}))"


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    if isinstance(sweep, IntervalSweep) or (
        isinstance(sweep, RangeSweep) and not sweep.shuffle and not sweep.transformers
    ):
        distribution: BaseDistribution = create_optuna_distribution_from_override(override)
        return distribution
    return CategoricalDistribution(list(override.sweep_iterator(transformer=_as_typed)))  # type: ignore[arg-type]


def _as_typed(value: Any) -> Any:
    """A number as it is; a text as it is typed on the command line, with the quotes or backslashes that it needs."""
    return value if isinstance(value, int | float) else Transformer.str(value)


def lowest(space: Space) -> list[str]:
    """One point of the space, as overrides: the first choice or the lower end of each key."""
    return [
        as_meant(f"{key}={found.choices[0] if isinstance(found, CategoricalDistribution) else found.low}")  # type: ignore[attr-defined]
        for key, found in space.items()
    ]


def combinations(space: Space) -> list[dict[str, Any]]:
    """Every combination of the values.

    Raises:
        UserError: a range has no steps.
    """
    values: list[Sequence[Any]] = []
    for key, found in space.items():
        if isinstance(found, CategoricalDistribution):
            values.append(found.choices)
        elif isinstance(found, IntDistribution) and not found.log:
            values.append(range(found.low, found.high + 1, found.step))
        elif isinstance(found, FloatDistribution) and found.step:
            steps = round((found.high - found.low) / found.step)
            values.append([found.low + found.step * step for step in range(steps + 1)])
        else:
            raise UserError(
                f"{key}: is continuous, so a grid cannot contain all its values; use choice(...) or range(...)"
            )
    return [dict(zip(space, combination)) for combination in itertools.product(*values)]
