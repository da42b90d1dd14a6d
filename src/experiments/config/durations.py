"""Durations with their units, as they are typed: 90s, 45min, 1.5h, 1h30min."""

from __future__ import annotations

import re
from typing import Annotated

_NUMBER = r"(\d+(?:\.\d+)?)"
_PARTS = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}min)?(?:{_NUMBER}s)?")


class Lasting:
    """A duration above zero, written as text."""

    def __contains__(self, value: str) -> bool:
        return bool(_PARTS.fullmatch(value)) and seconds(value) > 0

    def __str__(self) -> str:
        return "a duration with its unit, such as 90s, 45min, 1.5h or 1h30min"


Duration = Annotated[str, Lasting()]


def seconds(duration: str | None) -> float:
    """The seconds of a duration that was checked; infinite for None."""
    if duration is None:
        return float("inf")
    found = _PARTS.fullmatch(duration)
    assert found
    return sum(float(number or 0) * unit for number, unit in zip(found.groups(), (3600, 60, 1)))


def in_words(seconds: float) -> str:
    """A duration, rounded to what a reader needs: "45 s", "18 min", "2.5 h"."""
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 89.5 * 60 else f"{seconds / 3600:.1f} h"
