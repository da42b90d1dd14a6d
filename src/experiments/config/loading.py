"""Command line -> checked configuration: overrides are composed by Hydra, and every mistake is reported at once.

    check(["data=digits", "model.filtres=64"])   # UserError: model.filtres: ... did you mean model.filters?

Hydra stops at the first override it cannot apply. So where it stops, the overrides are taken one by one here: those
that cannot apply are described, the others are composed and checked by `parsing.parse`.
"""

from __future__ import annotations

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
        try:
            composed = compose("config", overrides=list(overrides))
        except HYDRA_ERRORS:
            raise UserError("\n".join(_diagnose(overrides))) from None
        problems = start_checks(overrides, composed)
    return parse_composed(composed, problems)


def check_overrides(overrides: Sequence[str], multirun: bool = True) -> None:
    """Check a command line, every point of a multirun included; of a continuous range its two ends.

    Raises:
        UserError: listing every mistake of every point.
    """
    parsed = [_parse(override) for override in overrides]
    if not multirun and (sweeps := [o.input_line for o in parsed if isinstance(o, Override) and o.is_sweep_override()]):
        raise UserError("\n".join(f"{text}: several values need a multirun: python train.py -m ..." for text in sweeps))
    choices = [
        _points(override) if isinstance(override, Override) and override.is_sweep_override() else [text]
        for text, override in zip(overrides, parsed)
    ]
    choices = [alternatives for alternatives in choices if alternatives]
    first = [alternatives[0] for alternatives in choices]
    one_by_one = [
        [*first[:index], value, *first[index + 1 :]]
        for index, alternatives in enumerate(choices)
        for value in alternatives[1:]
    ]
    _check_points([first, *one_by_one])  # of thousands of points the mistakes show at once
    if sum(len(alternatives) > 1 for alternatives in choices) > 1:
        _check_points(itertools.islice(itertools.product(*choices), 100_000))


def check_command_line() -> None:
    """Check what was typed behind `python train.py`; where only Hydra is asked something, it answers by itself.

    Raises:
        UserError: listing every mistake.
    """
    arguments = get_args_parser().parse_intermixed_args()
    if arguments.help or arguments.hydra_help or arguments.config_name or arguments.config_path:
        return
    folder = arguments.config_dir and Path(arguments.config_dir).resolve()
    search = [f"hydra.searchpath=[file://{folder}]"] if folder else []
    check_overrides([*arguments.overrides, *search], arguments.multirun)


def _check_points(points: Iterable[Sequence[str]]) -> None:
    problems: dict[str, None] = {}  # a set that keeps the order: points share most of their mistakes
    with hydra_api():
        composed = functools.cache(compose_groups)
        for point in points:
            try:
                _parse_quickly(point, composed)
            except (UserError, *HYDRA_ERRORS):
                try:
                    compose_config(point)  # tells what is wrong
                except UserError as error:
                    problems.update(dict.fromkeys(str(error).split("\n")))
    if problems:
        raise UserError("\n".join(problems))


def _parse_quickly(point: Sequence[str], compose_groups: Callable[[tuple[str, ...]], DictConfig]) -> None:
    """Parse a point without a composition of its own: that takes Hydra 50 ms, and many points choose the same groups."""
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
    parse_composed(composed, start_checks(point, composed, compose_groups))


def _points(override: Override) -> list[str]:
    """The values of a sweep as overrides; of a continuous one its two ends."""
    sweep, key = override.value(), override.get_key_element()
    if isinstance(sweep, IntervalSweep):
        return [f"{key}={sweep.start:g}", f"{key}={sweep.end:g}"]
    if isinstance(sweep, Glob):  # choices of a group that are there by definition
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
    """Why Hydra refused `overrides`: a line a mistake, with those that only show in the composed configuration."""
    problems = []
    search = [text for text in overrides if text.startswith("hydra.searchpath=")]  # decides which choices there are
    groups, values = [*search], []
    repository = GlobalHydra.instance().config_loader()
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
    except (
        HydraException,
        OmegaConfBaseException,
    ) as error:  # two groups that contradict each other, a broken YAML file
        return [*problems, str(error)]
    accepted = list(groups)
    for text, override in values:
        try:
            compose("config", overrides=[*accepted, text])
            accepted.append(text)
        except HYDRA_ERRORS as error:
            known = _dotted(base) + repository.get_group_options("", results_filter=None)
            missing = OmegaConf.select(base, override.key_or_group, throw_on_missing=False) is None
            missing = missing and not override.key_or_group.startswith("hydra")  # those are Hydra's own to explain
            reason = str(error).splitlines()[0]
            problems.append(unknown_key(override.key_or_group, known) if missing else f"{text}: {reason}")
    composed = compose("config", overrides=accepted)
    try:
        parse_composed(composed, start_checks(accepted, composed))
    except UserError as error:
        problems.append(str(error))
    return problems


def _is_value(override: Override) -> bool:
    """Of the program's own configuration, and no group."""
    return not override.key_or_group.startswith("hydra") and not _choices(override)


def _choices(override: Override, search: Sequence[str] = ()) -> list[str]:
    """The choices of a group; empty for a key."""
    return group_options(override.key_or_group, search)


def _unknown_choice(group: str, choice: str, options: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(choice, options, n=1)
    hint = f"; did you mean {group}={nearest[0]}?" if nearest else ""
    return f"{group}={choice}: must be one of {', '.join(options)}{hint}"


def _dotted(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key, value in config.items():
        keys += _dotted(value, f"{prefix}{key!s}.") if isinstance(value, DictConfig) else [f"{prefix}{key!s}"]
    return keys
