"""Command line -> checked configuration: overrides are composed by Hydra, and every mistake is reported at once.

    check_overrides(["data=digits", "model.filtres=64"])   # UserError: model.filtres: ... did you mean model.filters?

Hydra stops at the first override that it cannot apply. In that case the overrides are applied one by one here:
those that cannot be applied are described, and the others are composed and checked by `validation.parse`.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Sequence

import yaml
from hydra import compose
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.composition import compose_groups, group_names, group_options, hydra_api, parse_composed
from experiments.config.defaults import optional_groups
from experiments.config.errors import UserError
from experiments.config.hydra_settings import hydra_mistakes, missing_folders
from experiments.config.keys import flatten, key_of, roles
from experiments.config.overrides import (
    as_meant,
    is_plain,
    misread,
    parse,
    several,
    values_to_check,
)
from experiments.config.renamed import explain_choice
from experiments.config.schema import Config
from experiments.config.start_checks import start_checks
from experiments.config.validation import unknown_key

HYDRA_ERRORS = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    yaml.YAMLError,
)  # what Hydra raises for overrides it cannot apply
MOST_CHECKED = 1000  # combinations of values that are checked before a multirun; each value is checked in any case


def compose_config(overrides: Sequence[str]) -> Config:
    """Compose `overrides` as the command line would and check the result.

    Raises:
        UserError: listing every mistake.
    """
    with hydra_api():
        composed = compose_overrides(overrides)
        problems = start_checks([as_meant(text) for text in overrides], composed)
    return parse_composed(composed, problems)


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Compose `overrides`; the values are not checked.

    Raises:
        UserError: listing every mistake, if they cannot be applied.
    """
    wrong = [reason for text in overrides for reason in missing_folders(text)]
    wrong += [several(text) for text in overrides if (found := parse(as_meant(text))) and found.is_sweep_override()]
    if wrong:
        raise UserError("\n".join(wrong))
    with hydra_api():
        try:
            if not any(misread(text) or _wrong_choice(text, overrides) for text in overrides):
                composed = compose("config", overrides=[as_meant(text) for text in overrides])
                if not (problems := list(hydra_mistakes(overrides))):
                    return composed
                raise UserError("\n".join(problems))
        except HYDRA_ERRORS as error:
            if isinstance(error, UserError):
                raise
        raise UserError("\n".join(_diagnose(overrides))) from None


def compose_points(points: Iterable[Sequence[str]]) -> list[Config]:
    """The configurations of points that `check_overrides` has accepted; faster than composing them one by one."""
    with hydra_api():
        composed = functools.cache(compose_groups)
        return [_parse_quickly(point, composed) for point in points]


def check_overrides(overrides: Sequence[str], multirun: bool = True, most: int = MOST_CHECKED) -> None:
    """Check a command line, including the points of a multirun, at most `most` combinations; of a long range the two ends.

    Raises:
        UserError: listing every mistake of every point.
    """
    options = alternatives(overrides, multirun)
    first = [values[0] for values in options]
    changed = ((index, value) for index, values in enumerate(options) for value in values[1:])
    one_by_one = ([*first[:index], value, *first[index + 1 :]] for index, value in changed)
    _check_points([first, *one_by_one])  # finds the mistakes at once, even among thousands of points
    if sum(len(values) > 1 for values in options) > 1:
        _check_points(itertools.islice(itertools.product(*options), most))


def alternatives(overrides: Sequence[str], multirun: bool) -> list[list[str]]:
    """For each override, one override per value; several only in a multirun.

    Raises:
        UserError: if an override has several values, but `multirun` is false; or none.
    """
    if not multirun and (
        search := [text for text in overrides if key_of(text) == "search" and not text.endswith("=null")]
    ):
        raise UserError(f"{search[0]}: a search needs a multirun: python train.py -m {search[0]}")
    sweeps = {text: found for text in overrides if (found := parse(as_meant(text))) and found.is_sweep_override()}
    if sweeps and not multirun:
        raise UserError("\n".join(map(several, sweeps)))
    return [_values(sweeps[text]) if text in sweeps else [text] for text in overrides]


def _values(sweep: Override) -> list[str]:
    """The values to check; a pattern stands for the files of its group."""
    pattern = sweep.value()
    if not isinstance(pattern, Glob):
        return values_to_check(sweep)
    with hydra_api():
        names = pattern.filter(group_options(sweep.key_or_group))
    if not names:
        raise UserError(f"{sweep.input_line}: matches no file of conf/{sweep.key_or_group}/")
    return [f"{sweep.key_or_group}={name}" for name in names]


def exists(base: DictConfig, key: str) -> bool:
    """Whether the key exists; its value may be missing."""
    group, _, name = key.rpartition(".")
    section = OmegaConf.select(base, group) if group else base
    return isinstance(section, DictConfig) and name in list(section)


def _check_points(points: Iterable[Sequence[str]]) -> None:
    problems: dict[str, None] = {}  # an ordered set: points share most of their mistakes
    with hydra_api():
        composed = functools.cache(_compose_checked)
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


def _compose_checked(overrides: tuple[str, ...]) -> DictConfig:
    """Compose overrides other than values of keys of this project."""
    if any(misread(text) or any(missing_folders(text)) or _wrong_choice(text, overrides) for text in overrides):
        raise UserError("described by compose_overrides")
    if any(hydra_mistakes(overrides)):
        raise UserError("described by compose_overrides")
    return compose_groups(overrides)


def _parse_quickly(point: Sequence[str], compose_groups: Callable[[tuple[str, ...]], DictConfig]) -> Config:
    """Parse a point without composing it again: that takes Hydra 50 ms, and many points choose the same groups."""
    values, others = [], []
    for text in map(as_meant, point):
        override = parse(text)
        if override and sets_key(override):
            values.append(override)
        else:
            others.append(text)
    composed = copy.deepcopy(compose_groups(tuple(others)))
    for override in values:
        OmegaConf.update(composed, override.key_or_group, override.value())
    return parse_composed(composed, start_checks([*map(as_meant, point)], composed, compose_groups))


def _diagnose(overrides: Sequence[str]) -> list[str]:
    """The reasons why `overrides` cannot be applied, one line per mistake, and the mistakes in the composed configuration."""
    problems = [reason for text in overrides if key_of(text).isascii() and (reason := misread(text))]
    problems += [reason for text in overrides if (reason := _wrong_choice(text, overrides))]
    wrong = {text for text in overrides if misread(text) or _wrong_choice(text, overrides)}
    parsed = {as_meant(text): parse(as_meant(text)) for text in overrides if text not in wrong}
    accepted = [text for text, override in parsed.items() if not (override and sets_key(override))]
    try:
        base = compose("config", overrides=accepted)
    except HYDRA_ERRORS as error:  # two groups that contradict each other, a broken YAML file
        return [*problems, f"{' '.join(accepted)}: {' '.join(str(error).split())}"]
    known = [key for key, _ in flatten(OmegaConf.to_container(base))]  # type: ignore[arg-type]
    known += group_names()
    problems += [unknown_key(key_of(text), known) for text in overrides if not key_of(text).isascii()]
    for text, override in parsed.items():
        if override and sets_key(override):
            try:
                compose("config", overrides=[*accepted, text])
                accepted.append(text)
            except HYDRA_ERRORS as error:
                problems.append(_cannot_be_set(override, base, known, accepted, error))
    typed = tuple(f"{key_of(text)} is missing" for text in wrong)
    composed = compose("config", overrides=accepted)
    try:
        parse_composed(composed, start_checks(accepted, composed))
    except UserError as error:
        problems += [line for line in str(error).split("\n") if not line.startswith(typed)]
    return problems


def _cannot_be_set(
    override: Override, base: DictConfig, known: list[str], accepted: Sequence[str], error: Exception
) -> str:
    """The message for a key that does not exist, with the choice that lacks it; or Hydra's own message."""
    key = override.key_or_group
    if exists(base, key):
        return f"{override.input_line}: {str(error).splitlines()[0]}"
    choice = [text for text in accepted if key_of(text) == key.partition(".")[0]]
    return unknown_key(key, known) + (f" ({choice[0]} lacks it)" if choice and key in roles() else "")


def sets_key(override: Override | None) -> bool:
    """Whether an override sets one value of a key of this project, not a group and not a key of Hydra."""
    return override is not None and is_plain(override) and not group_options(override.key_or_group)


def _wrong_choice(text: str, overrides: Sequence[str]) -> str:
    """The message for a file that a group does not have; empty if there is none."""
    override = parse(as_meant(text))
    if override is None or override.is_sweep_override() or override.is_delete():
        return ""
    group, choice = override.key_or_group, override.value()
    search = [other for other in overrides if other.startswith("hydra.searchpath=")]  # determines the choices
    options = group_options(group, search)
    optional = group in optional_groups()
    if options and override.is_add() and group in roles() and not optional:
        return f"{text}: {group} has a choice; replace it by {group}={choice}"
    chosen = choice if optional and isinstance(choice, list) else [choice]
    if not options or all(one in options or (one is None and (optional or "/" in group)) for one in chosen):
        return ""
    hint = explain_choice(group, str(choice), options)
    if group == "data" and os.path.isdir(str(choice)):  # noqa: PTH112 - false for any text
        hint = f"; for the pictures in this folder: data=image_folder data.root={choice}"
    if group == "data" and os.path.isfile(str(choice)):  # noqa: PTH113
        hint = f"; for the pictures named in this file: data=csv data.file={choice}"
    return f"{text}: must be one of {', '.join(options)}{hint}"
