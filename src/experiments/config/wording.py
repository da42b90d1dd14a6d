"""Numbers and names in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, one: str, many: str = "") -> str:
    """A count with its word: "1 image", "2,000 images"; `many` is the plural if it is not made with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(fraction: float, digits: int = 1) -> str:
    """A share of 1: "57.0 %"."""
    return f"{100 * fraction:.{digits}f} %"


def shortened(text: str, longest: int) -> str:
    """The text, cut to `longest` characters."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def named(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
