"""Values of settings and metrics, compared and written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

LONG = 40  # characters of a setting


def numbers(values: Sequence[str | None]) -> list[float] | None:
    """Settings as numbers; None where one is missing, a word, or not finite."""
    try:
        found = [float(value) for value in values if value is not None]
    except ValueError:
        return None
    return found if len(found) == len(values) and all(map(math.isfinite, found)) else None


def logarithmic(values: Sequence[float]) -> bool:
    """Whether positive numbers span so much that only their logarithms can be told apart, and crowd at the low end.

    Numbers that are spread evenly do not, even where one of them is close to 0.
    """
    return min(values) > 0 and max(values) > 30 * min(values) and max(values) > 4 * statistics.median(values)


def ordered(values: Sequence[str | None]) -> list[str | None]:
    """The different values of a setting: numbers by size, words as they appear, a missing one last."""
    present = list(dict.fromkeys(value for value in values if value is not None))
    found = numbers(present)
    if found is not None:
        present = [value for _, value in sorted(zip(found, present))]
    return [*present, *([None] if None in values else [])]


def brief(value: str | None) -> str:
    """A setting as a table or an axis has room for it: a number with four digits, a class without its package."""
    if value is None:
        return "none"
    found = numbers([value])
    if found is not None:
        return f"{found[0]:.4g}" if len(value) > 6 else value
    word = value.rpartition(".")[2] if value.replace(".", "").isidentifier() else value
    return word if len(word) <= LONG else word[: LONG - 1] + "…"


def format_number(value: float | None, digits: int = 4) -> str:
    """Fit for a column: so many digits behind the point, one of large numbers; powers of ten where that shows nothing."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value) or 0 < abs(value) < 10**-digits:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
