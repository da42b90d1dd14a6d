"""What a value may be, as hints beside its type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated


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
    """One of these texts."""

    choices: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.choices

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}"


Positive = Annotated[float, Between(0, above=True)]
CountOrShare = Annotated[int, Between(1)] | Annotated[float, Between(0, 0.9, above=True)]
