"""Keys and files that were renamed: an old name is explained if it is typed; that of a key is replaced in a saved configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

RENAMED: dict[str, tuple[str, dict[str, str]]] = {  # old key: (new key, {old value: new value} if values changed)
    "training.sides": ("training.image_sizes", {}),
    "optimizer.unit_filters": ("optimizer.normalize_filters", {}),
    "optimizer.rest_lr": ("optimizer.adam_lr", {}),
    "optimizer.weight_decay_on": ("optimizer.weight_decay_exclude", {"all": "none", "weights": "bias_and_norm"}),
}

RENAMED_FILES = {("experiment", "fast94"): "fast92"}  # group and old name: new name


def explain_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """The end of the message for a file that a group does not have: the new name, or a similar one."""
    if new := RENAMED_FILES.get((group, choice)):
        return f"; {choice} was renamed: {group}={new}"
    nearest = difflib.get_close_matches(choice, options, n=1)
    return f"; did you mean {group}={nearest[0]}?" if nearest else ""


def explain_rename(old: str) -> str:
    """The message for an old key: what to set instead."""
    new, values = RENAMED[old]
    choices = " or ".join(f"{now} (was {was})" for was, now in values.items())
    return f"{old} was renamed: set {new}={choices or '...'}"


def with_new_names(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with the current keys and values."""
    renamed = {key: dict(value) if isinstance(value, Mapping) else value for key, value in saved.items()}
    for old, (new, values) in RENAMED.items():
        group, _, name = old.partition(".")
        section = renamed.get(group)
        if isinstance(section, dict) and name in section:
            value = section.pop(name)
            section[new.removeprefix(f"{group}.")] = values.get(value, value) if isinstance(value, str) else value
    if "data" in renamed and "seed" in renamed:
        renamed["data"].setdefault("seed", renamed["seed"])  # the split had no seed of its own
    return renamed
