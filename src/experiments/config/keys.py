"""The settings that identify runs and multiruns, chosen by the roles of keys, and the names made from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from experiments.config.constraints import Acts, OneOf, Role, without_marks
from experiments.config.schema import FAMILIES, Config

CHOICES = ("name", "_target_")  # last parts of the keys that hold the choice of a group
# Of Hydra's own settings, those of the sweeper determine the runs of a multirun, except for these:
SWEEPER, NOT_OF_SWEEPER = (
    ("hydra/sweeper", "hydra.sweeper."),
    ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.sweeper.storage"),
)

QUOTES = "\"'"
SHOWN_DIGITS = 6  # of a run's fingerprint, at the end of its name


@functools.cache
def roles() -> Mapping[str, Role]:
    """The role of every key and of every section: DECIDES if one of its keys has it, else that of its first key."""
    found = {key: role for key, _, role, _ in _fields()}
    for key, role in list(found.items()):
        section = key.rpartition(".")[0]
        if section and (section not in found or role is Role.DECIDES):
            found[section] = role
    return found


@functools.cache
def late_keys() -> Mapping[str, Acts]:
    """When every key acts that does not act from the first step: runs that differ in these may share their first epochs."""
    return {key: acts for key, _, _, acts in _fields() if acts.shares}


def may_share_epochs(key: str) -> bool:
    """Whether points that differ in this key or group, as typed, may share their first epochs."""
    plain = key.lstrip("+~").partition("@")[0]
    return plain == "experiment" or any(late == plain or late.startswith(f"{plain}.") for late in late_keys())


def words() -> Mapping[str, tuple[str, ...]]:
    """The allowed words of the keys that take them from a table."""
    return {
        key: detail.words
        for key, hint, *_ in _fields()
        for each in (hint, *get_args(hint))
        if get_origin(each) is Annotated
        for detail in get_args(each)
        if isinstance(detail, OneOf)
    }


@functools.cache
def text_keys() -> frozenset[str]:
    """The keys whose values are texts, or lists of texts: `1.10` is no number there."""
    return frozenset(key for key, hint, *_ in _fields() if _holds_text(hint))


@functools.cache
def text_lists() -> frozenset[str]:
    """Those of the text keys whose values are, or may be, lists."""
    listed = ((key, (hint, *get_args(hint))) for key, hint, *_ in _fields())
    return frozenset(key for key, hints in listed if any(get_origin(hint) is tuple for hint in hints))


def _holds_text(hint: Any) -> bool:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return all(map(_holds_text, get_type_hints(hint).values()))
    return hint is str or any(map(_holds_text, get_args(hint)))


def _fields(
    cls: type = Config, prefix: str = "", of_section: Role = Role.DECIDES, since: Acts = Acts.AT_ONCE
) -> Iterator[tuple[str, Any, Role, Acts]]:
    """(key, hint, role, when it acts) of every field, of every class that a section can have."""
    hints = get_type_hints(cls, include_extras=True)
    for name in (field.name for field in dataclasses.fields(cls)):
        plain, own, acts = without_marks(hints[name])
        role, acts = own or of_section, acts or since
        if isinstance(plain, type) and dataclasses.is_dataclass(plain):
            for choice in FAMILIES.get(plain, {"": plain}).values():
                yield from _fields(choice, f"{prefix}{name}.", role, acts)
        else:
            yield prefix + name, plain, role, acts


def role_of(key: str) -> Role:
    """The role of a key or group as typed; a key of a custom network or source has the role of its section."""
    plain = key.lstrip("+~").partition("@")[0]
    if plain.startswith("hydra"):
        return Role.DECIDES if plain.startswith(SWEEPER) and not plain.startswith(NOT_OF_SWEEPER) else Role.PLACE
    return roles().get(plain) or (Role.CONTENT if plain.startswith("data.") else Role.DECIDES)


def repeats(key: str) -> bool:
    """Whether runs that differ only in this key are repetitions of one setting."""
    return role_of(key) is Role.REPEATS


def repetition(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The keys that repeat a setting and their values; they identify the repetition. A run without folds may lack the key."""
    return tuple(sorted(f"{key}={value}" for key, value in settings.items() if repeats(key) and value != "None"))


def key_of(override: str) -> str:
    """The key of `key=value`."""
    return override.partition("=")[0].lstrip("+~")


def decisive_settings(config: Config) -> dict[str, Any]:
    """The settings that identify a run, by their dotted keys."""
    return {key: value for key, value in flatten(config.to_dict()) if role_of(key).identifies_run}


def multirun_name(overrides: Sequence[str]) -> str:
    """The typed overrides of the keys that identify a multirun, in the order typed."""
    shown = (text for text in overrides if role_of(key_of(text)).identifies_multirun)
    return " ".join(map(_without_folders, shown)) or "defaults"


def standalone_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides of one run of a multirun that also apply to a single run, in the same MLflow experiment."""
    meaningless = (Role.AFTER, Role.LABEL)
    kept = ("tracking", "tracking.experiment")
    return [text for text in overrides if key_of(text) in kept or role_of(key_of(text)) not in meaningless]


def run_name(overrides: Sequence[str], fingerprint: str) -> str:
    """The overrides that identify a run, without the groups of their keys if that is clear, and the start of its fingerprint."""
    shown = [
        text for text in overrides if role_of(key := key_of(text)).identifies_multirun and not key.startswith("hydra")
    ]
    names = [_in_group(key_of(text)) for text in shown]
    short = [
        text if names.count(name) > 1 else _in_group(text) for text, name in zip(map(_without_folders, shown), names)
    ]
    return " ".join([*short, fingerprint[:SHOWN_DIGITS]])


def _in_group(text: str) -> str:
    """A key, or an override, without the group of the key."""
    return text.split(".", 1)[-1] if "." in key_of(text) else text


def _without_folders(override: str) -> str:
    """`model.weights=FILE` without the folders of the file; several files may differ in them."""
    key, _, value = override.partition("=")
    single = key_of(override) == "model.weights" and "," not in value
    return f"{key}={PurePath(value.strip(QUOTES)).name}" if single else override


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def key_labels(keys: Sequence[str]) -> dict[str, str]:
    """Short names of keys: the last part, or for a choice the group; the whole key if two names would be equal."""
    short = {}
    for key in keys:
        group, _, last = key.rpartition(".")
        short[key] = group if group and last in CHOICES else last
    names = list(short.values())
    return {key: name if names.count(name) == 1 else key for key, name in short.items()}


def point_name(overrides: Sequence[str], varied: Sequence[str]) -> str:
    """The varied keys and their values, in short form."""
    varied = [key_of(key) for key in varied]  # typed as +key if conf/ lacks it, as ++key beside a swept choice
    short = key_labels(varied)
    values = dict(text.lstrip("+").partition("=")[::2] for text in overrides)
    return " ".join(f"{short[key]}={_brief(values[key])}" for key in varied if key in values) or " ".join(overrides)


def _brief(value: str) -> str:
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value
