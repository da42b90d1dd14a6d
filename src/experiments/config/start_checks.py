"""Checks before a run is started. A finished run that is loaded does not have to pass them."""

# ruff: noqa: PTH110, PTH113 - `Path.exists`, `is_dir` and `is_file` raise an error for some texts, such as a very long one
from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.config.composition import compose_groups
from experiments.config.data import SOURCES, DataSettings
from experiments.config.networks import MODELS
from experiments.config.published import FORMATS, IMAGENET, RUN, missing_library
from experiments.config.targets import syntax_errors

SQLITE = "sqlite:///"
ARTIFACTS = "tracking.artifacts"
STORAGE = "; for a storage service, start `mlflow server --artifacts-destination ADDRESS` and set tracking.uri=http://HOST:PORT"
CHOOSING = ("data", "model", "experiment", "hydra.searchpath")  # overrides that choose the YAML file of a custom class


def start_checks(
    overrides: Sequence[str], composed: DictConfig, composing: Callable[[tuple[str, ...]], DictConfig] = compose_groups
) -> list[str]:
    """Mistakes in the types of a custom class's keys, and in paths.

    Args:
        composed: the configuration composed from `overrides`.
        composing: composes other overrides.
    """
    paths = [*_missing_paths(composed), *_unusable_paths(composed)]
    sources = [*_wrong_types(overrides, composed, composing), *_unreadable_sources(composed)]
    return [*sources, *paths, *_missing_weights(composed)]


def _unreadable_sources(composed: DictConfig) -> Iterator[str]:
    """Syntax errors in the files of custom classes, found before anything is imported or read."""
    for group, classes in (("model", MODELS), ("data", SOURCES)):
        target = str(OmegaConf.select(composed, f"{group}._target_", throw_on_missing=False))
        if target not in classes and "." in target.strip("."):
            yield from (f"{group}._target_={target}: {error}" for error in syntax_errors(target))


def _wrong_types(
    overrides: Sequence[str], composed: DictConfig, composing: Callable[[tuple[str, ...]], DictConfig]
) -> Iterator[str]:
    """A custom class has no settings class: the values in its YAML file determine the types of its keys."""
    of_all_sources = {f"data.{field.name}" for field in dataclasses.fields(DataSettings)}
    for group, classes in (("model", MODELS), ("data", SOURCES)):
        section = composed.get(group)
        changed = any(text.lstrip("+").startswith(f"{group}.") for text in overrides)
        if not changed or not isinstance(section, DictConfig) or str(section.get("_target_")) in classes:
            continue
        base = composing(tuple(text for text in overrides if text.partition("=")[0] in CHOOSING))[group]
        for name in map(str, section):
            if f"{group}.{name}" in of_all_sources:  # checked by their settings class
                continue
            value, old = section.get(name), base.get(name)
            kinds = (int, float) if type(old) is float else (type(old),)
            if old is not None and type(value) not in kinds:
                yield f"{group}.{name}={value}: must have the type {type(old).__name__}, like {old} in its YAML file"


def _unusable_paths(composed: DictConfig) -> Iterator[str]:
    """Folders that cannot be written to; a folder is made if it does not exist."""
    uri = OmegaConf.select(composed, "tracking.uri", throw_on_missing=False)
    local = isinstance(uri, str) and uri.startswith(SQLITE)
    reading = SOURCES.get(
        str(OmegaConf.select(composed, "data._target_", throw_on_missing=False)), DataSettings
    ).folders
    downloading = [] if "root" in reading else ["data.root"]
    for key in ("outputs", *downloading, *([ARTIFACTS] if local else [])):
        folder = OmegaConf.select(composed, key, throw_on_missing=False)
        if isinstance(folder, str) and re.match(r"[A-Za-z][\w+.-]*://", folder):
            yield f"{key}={folder}: must be a folder of this machine, not an address{STORAGE if key == ARTIFACTS else ''}"
        elif isinstance(folder, str) and (reason := unwritable(expanded(folder))):
            yield f"{key}={folder}: must be a folder; {reason}"
    if local and (reason := unusable_database(expanded(uri.removeprefix(SQLITE)))):
        yield f"tracking.uri={uri}: {reason}"


def expanded(path: str) -> Path:
    """The path with ~ replaced; one in the folder of a user that does not exist is no file of this system."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path("/dev/null") / path


def unwritable(folder: Path) -> str:
    """Why files cannot be written to a folder, which may not exist yet; empty if they can."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir():
        return f"{existing} is a file"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} may not be written to"


def unusable_database(file: Path) -> str:
    """Why a file cannot be a SQLite database, which may not exist yet; empty if it can."""
    if file.is_dir():
        return f"{file} is a folder"
    if not file.exists():
        return unwritable(file.parent)
    if not os.access(file, os.R_OK | os.W_OK):
        return f"{file} may not be read or written to"
    with file.open("rb") as opened:
        start = opened.read(16)
    return "" if start in (b"", b"SQLite format 3\0") else f"{file} is not a database of SQLite"


def _missing_weights(composed: DictConfig) -> Iterator[str]:
    """Weights that are not there, and a library that is not installed."""
    weights = OmegaConf.select(composed, "model.weights", throw_on_missing=False)
    if isinstance(weights, str) and weights != IMAGENET and not weights.startswith(RUN):
        if not weights.endswith(FORMATS):
            yield f"model.weights={weights}: must be null, {IMAGENET}, run:ID, run:best, run:latest, or a file ({', '.join(FORMATS)})"
        elif not os.path.isfile(expanded(weights)):
            yield f"model.weights={weights}: there is no such file"
    if missing := missing_library(OmegaConf.select(composed, "model._target_", throw_on_missing=False)):
        yield missing


def _missing_paths(composed: DictConfig) -> Iterator[str]:
    data = composed.get("data") or {}
    source = SOURCES.get(str(data.get("_target_")), DataSettings)
    for kind, keys, is_there in (("folder", source.folders, os.path.isdir), ("file", source.files, os.path.isfile)):
        for key, content in keys.items():
            path = OmegaConf.select(composed, f"data.{key}", throw_on_missing=False)
            if isinstance(path, str) and not is_there(place := expanded(path)):
                wrong = f"is not a {kind}" if os.path.exists(place) else f"there is no such {kind}"
                yield f"data.{key}={path}: {wrong}; it must contain {content}"
    for entry in data.get("extra") or []:
        path = entry.get("path") if isinstance(entry, DictConfig) else None
        if isinstance(path, str) and not os.path.exists(expanded(path)):
            yield f"data.extra: there is no file or folder {path}"
