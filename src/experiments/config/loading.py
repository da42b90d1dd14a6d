"""Command line -> checked configuration: overrides are composed by Hydra, and every mistake is reported at once.

    check_overrides(["data=digits", "model.filtres=64"])   # UserError: model.filtres: ... did you mean model.filters?

Hydra stops at the first override that it cannot apply. In that case the overrides are applied one by one here:
those that cannot be applied are described, and the others are composed and checked by `validation.parse`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hydra import compose
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.composition import compose_groups, group_options, hydra_api, parse_composed
from experiments.config.errors import UserError
from experiments.config.keys import flatten
from experiments.config.schema import Config
from experiments.config.start_checks import start_checks
from experiments.config.validation import unknown_key

HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # what Hydra raises for overrides it cannot apply


def compose_config(overrides: Sequence[str]) -> Config:
    """Compose `overrides` as the command line would and check the result.

    Raises:
        UserError: listing every mistake.
    """
    with hydra_api():
        composed = compose_overrides(overrides)
        problems = start_checks(overrides, composed)
    return parse_composed(composed, problems)


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Compose `overrides`; the values are not checked.

    Raises:
        UserError: listing every mistake, if Hydra cannot apply them.
    """
    with hydra_api():
        try:
            return compose("config", overrides=list(overrides))
        except HYDRA_ERRORS:
            raise UserError("\n".join(_diagnose(overrides))) from None


def compose_points(points: Iterable[Sequence[str]]) -> list[Config]:
    """The configurations of points that `check_overrides` has accepted; faster than composing them one by one."""
    with hydra_api():
        composed = functools.cache(compose_groups)
        return [_parse_quickly(point, composed) for point in points]


def check_overrides(overrides: Sequence[str], multirun: bool = True) -> None:
    """Check a command line, including every point of a multirun; a continuous range is checked at its two ends.

    Raises:
        UserError: listing every mistake of every point.
    """
    choices = alternatives(overrides, multirun)
    first = [values[0] for values in choices]
    changed = ((index, value) for index, values in enumerate(choices) for value in values[1:])
    one_by_one = ([*first[:index], value, *first[index + 1 :]] for index, value in changed)
    _check_points([first, *one_by_one])  # finds the mistakes at once, even among thousands of points
    if sum(len(values) > 1 for values in choices) > 1:
        _check_points(itertools.islice(itertools.product(*choices), 100_000))


def alternatives(overrides: Sequence[str], multirun: bool) -> list[list[str]]:
    """For each override, one override per value; several only in a multirun.

    Raises:
        UserError: if an override has several values, but `multirun` is false.
    """
    parsed = [_parse(override) for override in overrides]
    if not multirun and (sweeps := [o.input_line for o in parsed if isinstance(o, Override) and o.is_sweep_override()]):
        raise UserError("\n".join(f"{text}: several values need a multirun: python train.py -m ..." for text in sweeps))
    choices = [
        _points(override) if isinstance(override, Override) and override.is_sweep_override() else [text]
        for text, override in zip(overrides, parsed)
    ]
    return [values for values in choices if values]


def check_command_line() -> None:
    """Check the arguments of `python train.py`, unless Hydra only prints information.

    Raises:
        UserError: listing every mistake.
    """
    arguments = get_args_parser().parse_intermixed_args()
    if not (arguments.help or arguments.hydra_help or arguments.config_name or arguments.config_path):
        check_overrides(typed_overrides(arguments), arguments.multirun)


def typed_overrides(arguments: argparse.Namespace) -> list[str]:
    """The overrides of Hydra's command line, with the folder of --config-dir as one of them."""
    return [*arguments.overrides, *search_path(arguments.config_dir)]


def search_path(config_dir: str | None) -> list[str]:
    """The folder of --config-dir as an override."""
    return [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []


def _check_points(points: Iterable[Sequence[str]]) -> None:
    problems: dict[str, None] = {}  # an ordered set: points share most of their mistakes
    with hydra_api():
        composed = functools.cache(compose_groups)
        for point in points:
            try:
                _parse_quickly(point, composed)
            except (UserError, *HYDRA_ERRORS):
                try:
                    compose_config(point)  # raises with the mistakes
                except UserError as error:
                    problems.update(dict.fromkeys(str(error).split("\n")))
    if problems:
        raise UserError("\n".join(problems))


def _parse_quickly(point: Sequence[str], compose_groups: Callable[[tuple[str, ...]], DictConfig]) -> Config:
    """Parse a point without composing it again: that takes Hydra 50 ms, and many points choose the same groups."""
    values, others = [], []
    for text in point:
        override = _parse(text)
        if isinstance(override, Override) and override.type == OverrideType.CHANGE and _is_value(override):
            values.append(override)
        else:
            others.append(text)
    composed = copy.deepcopy(compose_groups(tuple(others)))
    for override in values:
        OmegaConf.update(composed, override.key_or_group, override.value())
    return parse_composed(composed, start_checks(point, composed, compose_groups))


def _points(override: Override) -> list[str]:
    """The values of a sweep as overrides; for a continuous range, its two ends."""
    sweep, key = override.value(), override.get_key_element()
    if isinstance(sweep, IntervalSweep):
        return [f"{key}={sweep.start:g}", f"{key}={sweep.end:g}"]
    if isinstance(sweep, Glob):  # its choices exist by definition
        return []
    return [f"{key}={value}" for value in itertools.islice(override.sweep_string_iterator(), 1000)]


@functools.cache
def _parse(text: str) -> Override | str:
    with contextlib.suppress(HydraException, ValueError):
        override = OverridesParser.create().parse_override(text)
        if override.key_or_group:
            return override
    return f"{text}: cannot be read; write key=value, and put quotes around special characters: 'key=\"a, b\"'"


def _diagnose(overrides: Sequence[str]) -> list[str]:
    """The reasons why Hydra rejected `overrides`, one line per mistake, and the mistakes in the composed configuration."""
    problems = []
    search = [text for text in overrides if text.startswith("hydra.searchpath=")]  # determines the available choices
    groups, values = [*search], []
    for text in (text for text in overrides if text not in search):
        override = _parse(text)
        if isinstance(override, str):
            problems.append(override)
        elif options := _choices(override, search):
            choice = override.value()
            if choice in options or choice is None or override.is_delete():
                groups.append(text)
            else:
                problems.append(_unknown_choice(override.key_or_group, str(choice), options))
        else:
            values.append((text, override))
    try:
        base = compose("config", overrides=groups)
    except HYDRA_ERRORS as error:  # two groups that contradict each other, a broken YAML file
        return [*problems, str(error)]
    known = [key for key, _ in flatten(OmegaConf.to_container(base))]  # type: ignore[arg-type]
    known += GlobalHydra.instance().config_loader().get_group_options("", results_filter=None)
    accepted = list(groups)
    for text, override in values:
        try:
            compose("config", overrides=[*accepted, text])
            accepted.append(text)
        except HYDRA_ERRORS as error:
            missing = OmegaConf.select(base, override.key_or_group, throw_on_missing=False) is None
            missing = missing and not override.key_or_group.startswith("hydra")  # Hydra explains its own keys
            message = unknown_key(override.key_or_group, known) if missing else f"{text}: {str(error).splitlines()[0]}"
            problems.append(message)
    composed = compose("config", overrides=accepted)
    try:
        parse_composed(composed, start_checks(accepted, composed))
    except UserError as error:
        problems.append(str(error))
    return problems


def _is_value(override: Override) -> bool:
    """Whether an override sets a key of this project: no group, and no key of Hydra."""
    return not override.key_or_group.startswith("hydra") and not _choices(override)


def _choices(override: Override, search: Sequence[str] = ()) -> list[str]:
    """The choices of a group; empty for a key."""
    return group_options(override.key_or_group, search)


def _unknown_choice(group: str, choice: str, options: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={nearest[0]}?" if nearest else ""
    return f"{group}={choice}: must be one of {', '.join(options)}{hint}"
