"""Checks of a run that is to be started. A finished run that is only read back need not pass them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
        composed: the configuration that `overrides` make.
        composing: a function that composes other overrides.
    """
    return [*_wrong_types(overrides, composed, composing), *_missing_paths(composed)]


def _wrong_types(
    overrides: Sequence[str], composed: DictConfig, composing: Callable[[tuple[str, ...]], DictConfig]
) -> Iterator[str]:
    """A custom network or data source has no settings class: the values of its YAML file define the types of its keys."""
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
                yield f"{group}.{name}={value}: must have the type of {old} in its YAML file ({type(old).__name__})"


def _missing_paths(composed: DictConfig) -> Iterator[str]:
    data = composed.get("data") or {}
    for key, content in SOURCES.get(str(data.get("_target_")), DataSettings).folders.items():
        folder = OmegaConf.select(composed, f"data.{key}", throw_on_missing=False)
        if isinstance(folder, str) and not Path(folder).expanduser().is_dir():
            yield f"data.{key}={folder}: there is no such folder; it must contain {content}"
    for entry in data.get("extra") or []:
        path = entry.get("path") if isinstance(entry, DictConfig) else None
        if isinstance(path, str) and not Path(path).expanduser().exists():
            yield f"data.extra: there is no file or folder {path}"
