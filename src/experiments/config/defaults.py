"""Default values, read from conf/ without Hydra, which takes too long for the options of a script."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parents[3] / "conf"


@functools.cache
def default(key: str) -> Any:
    """The default value of a key in conf/; not for values that refer to other keys."""
    main = _read(CONF / "config.yaml")
    group, *path = key.split(".")
    chosen = {name: choice for entry in main["defaults"] if isinstance(entry, dict) for name, choice in entry.items()}
    value = _read_choice(CONF / group / f"{chosen[group]}.yaml") if group in chosen else main[group]
    for part in path:
        value = value[part]
    return value


@functools.cache
def optional_groups() -> frozenset[str]:
    """The groups of which no file is chosen by default."""
    entries = [entry for entry in _read(CONF / "config.yaml")["defaults"] if isinstance(entry, dict)]
    return frozenset(group for entry in entries for group, choice in entry.items() if choice is None)


def _read_choice(path: Path) -> dict[str, Any]:
    """The keys of a choice, with those of the choices that its `defaults:` list."""
    content = _read(path)
    based_on: dict[str, Any] = {}
    for name in content.pop("defaults", ()):
        based_on |= _read_choice(path.with_name(f"{name}.yaml"))
    return based_on | content


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
