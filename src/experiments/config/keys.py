"""Names of keys, runs and points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def run_name(overrides: Sequence[str], fingerprint: str) -> str:
    """What differs from the defaults, without the groups' names, and the start of the fingerprint."""
    ignored = ("tracking", "data.root", "outputs", "resume", "device", "hydra", "evaluate_test", "sweep")
    different = [
        text.split(".", 1)[-1] if "." in text.split("=")[0] else text
        for text in overrides
        if not text.startswith(ignored)
    ]
    return " ".join([*different, fingerprint[:6]])[:250]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


NO_DIFFERENCE = (
    "tracking.",
    "sweep.",
    "outputs",
    "resume",
    "device",
    "evaluate_test",
    "data.cache",
)  # no difference in what is run
CHOICES = ("name", "_target_")  # how the key ends that says which of a group was chosen


def key_labels(keys: Sequence[str]) -> dict[str, str]:
    """Short names for settings: the last part, of a choice the part before; the whole key where two would be alike."""
    short = {}
    for key in keys:
        group, _, last = key.rpartition(".")
        short[key] = group if group and last in CHOICES else last
    names = list(short.values())
    return {key: name if names.count(name) == 1 else key for key, name in short.items()}


def point_name(overrides: Sequence[str], varied: Sequence[str]) -> str:
    """The values of the varied keys, in short."""
    short = key_labels(varied)
    values = dict(text.lstrip("+").partition("=")[::2] for text in overrides)
    return " ".join(f"{short[key]}={_shown(values[key])}" for key in varied if key in values) or " ".join(overrides)


def _shown(value: str) -> str:
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value
