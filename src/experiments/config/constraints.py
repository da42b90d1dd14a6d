"""The allowed values of keys, their roles, and when they act, written after the type of a field in `Annotated`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, get_args, get_origin


class Role(Enum):
    """The purpose of a key. A field without a role has the role of its section; a section without a role DECIDES."""

    DECIDES = "decides the numbers of a run"
    REPEATS = "repeats a run with other random numbers"
    CONTENT = "chooses the images or the initial weights, whose digest identifies a run"
    HARDWARE = "chooses what a run computes on"
    PLACE = "is the location of files"
    LABEL = "is a name"
    AFTER = "controls what happens before or after training"

    @property
    def identifies_run(self) -> bool:
        """The key is part of a run's identity; the digests of the images and weights, and the device in use, are added to it."""
        return self in (Role.DECIDES, Role.REPEATS)

    @property
    def identifies_multirun(self) -> bool:
        """The key is part of a multirun's identity, and of the names of runs and multiruns."""
        return self in (Role.DECIDES, Role.REPEATS, Role.CONTENT)

    @property
    def distinguishes(self) -> bool:
        """Runs with different values of the key are different in a comparison."""
        return self.identifies_multirun or self is Role.HARDWARE

    @property
    def of_whole_multirun(self) -> bool:
        """The key has a single value in a multirun."""
        return self in (Role.PLACE, Role.LABEL, Role.AFTER)


class Acts(Enum):
    """When a key acts on the weights of a run, so that runs which differ in it may share their first epochs.

    A field without a declaration has that of its section; a section without one acts AT_ONCE.
    """

    AT_ONCE = "from the first step"
    PER_EPOCH = "a list: every value in the epoch at its place"
    FROM_EPOCH = "the first epoch in which it acts; null is another setting from the first step on"
    BY_RATE = "by the learning rates of the steps only"
    ON_STOPPING = "never: it decides when training ends and which weights are kept"
    ON_VALIDATION = "never: it changes the metrics of the validation"
    AFTERWARDS = "never: it acts after training"

    @property
    def shares(self) -> bool:
        """Runs with different values may share their first epochs."""
        return self is not Acts.AT_ONCE

    def in_epoch(self, value: Any, epoch: int) -> Any:
        """What of the value acts on the weights in an epoch, counted from 1; learning rates are compared by themselves."""
        if self is Acts.PER_EPOCH:
            return list(value[epoch - 1 : epoch])
        if self is Acts.FROM_EPOCH:
            return value is None, value is not None and epoch >= value
        return None


@dataclass(frozen=True)
class Between:
    """A range. Both ends are allowed; with `above`, the lower end is not."""

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.low == float("-inf"):
            return "that is finite"
        if self.high == float("inf"):
            return f"{'above' if self.above else 'of at least'} {self.low:,}"
        return f"above {self.low:,} and at most {self.high:,}" if self.above else f"from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class OneOf:
    """One of the words of a table; words that are written out in the hint are a `Literal`."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class Length:
    """Text that is not blank, and not too long."""

    longest: int = 4000  # characters; a system refuses longer paths

    def __contains__(self, value: str) -> bool:
        return bool(value.strip()) and len(value) <= self.longest

    def __str__(self) -> str:
        return f"of 1 to {self.longest:,} characters"


Finite = Annotated[float, Between(float("-inf"))]
Text = Annotated[str, Length()]
Positive = Annotated[float, Between(0, above=True)]
ImageSize = Annotated[int, Between(4, 1024)]  # pixels per side
CountOrFraction = Annotated[int, Between(1)] | Annotated[float, Between(0, 0.9, above=True)]


def without_marks(hint: Any) -> tuple[Any, Role | None, Acts | None]:
    """Returns (the hint without what follows, its role or None, when it acts or None)."""
    if get_origin(hint) is not Annotated:
        return hint, None, None
    base, *details = get_args(hint)
    role = next((detail for detail in details if isinstance(detail, Role)), None)
    acts = next((detail for detail in details if isinstance(detail, Acts)), None)
    rest = [detail for detail in details if not isinstance(detail, Role | Acts)]
    return (Annotated[base, *rest] if rest else base), role, acts
