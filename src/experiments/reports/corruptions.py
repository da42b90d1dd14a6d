"""The accuracy of a network on corrupted images, as the report shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Row = Sequence[float]  # the accuracy at each strength, from 1


@dataclass(frozen=True)
class Corrupted:
    """The accuracy of a network on corrupted images.

    Attributes:
        clean: accuracy on the same images without corruption.
        accuracy: corruption -> accuracy at each strength.
        groups: corruption -> its group.
        examples: corruption -> an image without it, and at each strength, uint8 (1 + strengths, 3, H, W).
    """

    clean: float = 0.0
    accuracy: Mapping[str, Row] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether anything was measured."""
        return bool(self.accuracy)

    @property
    def mean(self) -> float:
        """The mean over all corruptions and strengths."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def ratio(self) -> float:
        """The mean as a fraction of the accuracy on images without corruption."""
        return self.mean / self.clean if self.clean else 0.0

    @property
    def by_group(self) -> dict[str, dict[str, Row]]:
        """Group -> corruption -> accuracy at each strength."""
        rows: dict[str, dict[str, Row]] = {}
        for name, accuracies in self.accuracy.items():
            rows.setdefault(self.groups[name], {})[name] = accuracies
        return rows

    @property
    def table(self) -> Iterator[tuple[str, str, int, float]]:
        """(group, corruption, strength, accuracy) of each; strength 0 is the accuracy without corruption."""
        yield "none", "none", 0, self.clean
        for name, accuracies in self.accuracy.items():
            for strength, accuracy in enumerate(accuracies, start=1):
                yield self.groups[name], name, strength, accuracy
