"""What a value may be, and what a key is for: details that stand beside the type of a field, in `Annotated`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, get_args, get_origin


class Role(Enum):
    """What a key is for. A field without a role has that of its section; a section without one DECIDES."""

    DECIDES = "decides the numbers of a run"
    REPEATS = "repeats a run with other random numbers"
    CONTENT = "chooses the images, for which the digest of the images stands"
    HARDWARE = "chooses what a run computes on"
    PLACE = "says where things lie"
    LABEL = "names things"
    AFTER = "says what happens before or after training"

    @property
    def identifies_run(self) -> bool:
        """Part of what a run is; the digest of the images and the device in use are added to it."""
        return self in (Role.DECIDES, Role.REPEATS)

    @property
    def identifies_multirun(self) -> bool:
        """Part of what a multirun is, and of the names of runs and multiruns."""
        return self in (Role.DECIDES, Role.REPEATS, Role.CONTENT)

    @property
    def distinguishes(self) -> bool:
        """A difference in it is a difference between two runs that are compared."""
        return self.identifies_multirun or self is Role.HARDWARE

    @property
    def of_whole_multirun(self) -> bool:
        """A multirun has one value of it."""
        return self in (Role.PLACE, Role.LABEL, Role.AFTER)


@dataclass(frozen=True)
class Between:
    """Both ends are allowed; with `above`, the lower end is not."""

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.high == float("inf"):
            return f"{'above' if self.above else 'of at least'} {self.low:,}"
        return f"above {self.low:,} and at most {self.high:,}" if self.above else f"from {self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class OneOf:
    """One of some words, where a table elsewhere has them."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


Positive = Annotated[float, Between(0, above=True)]
CountOrShare = Annotated[int, Between(1)] | Annotated[float, Between(0, 0.9, above=True)]


def without_role(hint: Any) -> tuple[Any, Role | None]:
    """(the hint without its role, the role if it has one)."""
    if get_origin(hint) is not Annotated:
        return hint, None
    base, *details = get_args(hint)
    role = next((detail for detail in details if isinstance(detail, Role)), None)
    rest = [detail for detail in details if detail is not role]
    return (Annotated[base, *rest] if rest else base), role
