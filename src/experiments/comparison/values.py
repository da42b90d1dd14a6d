"""Values of settings and metrics: as numbers, in order, and as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from experiments.config.wording import shortened

LONGEST = 40  # characters of a setting in a table
NO_REASON = "no reason recorded"  # of a point that did not finish


def numbers(values: Sequence[str | None]) -> list[float] | None:
    """The values of a setting as numbers; None if one is missing, a word, or not finite."""
    try:
        found = [float(value) for value in values if value is not None]
    except ValueError:
        return None
    return found if len(found) == len(values) and all(map(math.isfinite, found)) else None


def logarithmic(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis shows these better: they are positive, span more than 30, and most are small.

    Evenly spaced numbers need none, even if one of them is close to 0.
    """
    return min(values) > 0 and max(values) > 30 * min(values) and max(values) > 4 * statistics.median(values)


def ordered(values: Sequence[str | None]) -> list[str | None]:
    """The distinct values of a setting: numbers by size, words as they first appear, a missing one last."""
    present = list(dict.fromkeys(value for value in values if value is not None))
    found = numbers(present)
    if found is not None:
        present = [value for _, value in sorted(zip(found, present))]
    return [*present, *([None] if None in values else [])]


def brief(value: str | None) -> str:
    """A setting, short enough for a table or an axis: a number with four digits, a class without its package."""
    if value is None:
        return "none"
    found = numbers([value])
    if found is not None:
        return f"{found[0]:.4g}" if len(value) > 6 else value
    word = value.rpartition(".")[2] if value.replace(".", "").isidentifier() else value
    return shortened(word, LONGEST)


def format_number(value: float | None, digits: int = 4) -> str:
    """A metric for a column: `digits` decimals, from 10 on one or none; scientific notation for tiny values."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value) or 0 < abs(value) < 10**-digits:
        return f"{value:.3g}"
    if abs(value) < 10:
        return f"{value:.{digits}f}"
    return f"{value:,.{0 if value == int(value) else 1}f}"
