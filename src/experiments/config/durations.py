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


def between(low: float, high: float) -> str:
    """From and to how many seconds, rounded to what a reader needs: "40 to 55 s", "18 to 26 min", "about 2.5 h"."""
    unit, size = next(
        (unit, size) for unit, size in (("h", 3600), ("min", 60), ("s", 1)) if high >= 1.5 * size or unit == "s"
    )
    digits = 1 if unit != "s" and high < 10 * size else 0
    first, last = (f"{value / size:.{digits}f}" for value in (low, high))
    return f"about {last} {unit}" if first == last else f"{first} to {last} {unit}"
