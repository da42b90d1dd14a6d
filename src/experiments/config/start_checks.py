"""Checks before a run is started. A finished run that is loaded does not have to pass them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from omegaconf import DictConfig, OmegaConf

from experiments.config.composition import compose_groups
from experiments.config.data import SOURCES, DataSettings
from experiments.config.networks import MODELS

CHOOSING = ("data", "model", "experiment", "hydra.searchpath")  # overrides that choose the YAML file of a custom class


def start_checks(
    overrides: Sequence[str], composed: DictConfig, composing: Callable[[tuple[str, ...]], DictConfig] = compose_groups
) -> list[str]:
    """Mistakes in the types of a custom class's keys, and in paths.

    Args:
        composed: the configuration composed from `overrides`.
        composing: composes other overrides.
    """
    return [*_wrong_types(overrides, composed, composing), *_missing_paths(composed)]


def _wrong_types(
    overrides: Sequence[str], composed: DictConfig, composing: Callable[[tuple[str, ...]], DictConfig]
) -> Iterator[str]:
    """A custom class has no settings class: the values in its YAML file determine the types of its keys."""
    of_all_sources = {f"data.{field.name}" for field in dataclasses.fields(DataSettings)}
    for group, classes in (("model", MODELS), ("data", SOURCES)):
        section = composed.get(group)
        changed = any(text.lstrip("+").startswith(f"{group}.") for text in overrides)
        if not changed or not isinstance(section, DictConfig) or section.get("_target_") in classes:
            continue
        base = composing(tuple(text for text in overrides if text.partition("=")[0] in CHOOSING))[group]
        for name in map(str, section):
            if f"{group}.{name}" in of_all_sources:  # checked by their settings class
                continue
            value, old = section.get(name), base.get(name)
            kinds = (int, float) if type(old) is float else (type(old),)
            if old is not None and type(value) not in kinds:
                yield f"{group}.{name}={value}: must have the type {type(old).__name__}, like {old} in its YAML file"


def _missing_paths(composed: DictConfig) -> Iterator[str]:
    """Paths as typed; the functions of `os.path` take any text, those of `Path` raise errors for some."""
    data = composed.get("data") or {}
    for key, content in SOURCES.get(str(data.get("_target_")), DataSettings).folders.items():
        folder = OmegaConf.select(composed, f"data.{key}", throw_on_missing=False)
        if isinstance(folder, str) and not os.path.isdir(os.path.expanduser(folder)):  # noqa: PTH111, PTH112
            wrong = "is not a folder" if os.path.exists(folder) else "there is no such folder"  # noqa: PTH110
            yield f"data.{key}={folder}: {wrong}; it must contain {content}"
    for entry in data.get("extra") or []:
        path = entry.get("path") if isinstance(entry, DictConfig) else None
        if isinstance(path, str) and not os.path.exists(os.path.expanduser(path)):  # noqa: PTH110, PTH111
            yield f"data.extra: there is no file or folder {path}"
