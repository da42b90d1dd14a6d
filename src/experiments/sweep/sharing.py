"""What a multirun does so that its points train their common epochs once: the order of its points, and the count of epochs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from experiments.config.keys import key_of, may_share_epochs
from experiments.config.wording import counted
from experiments.runs.pool import Epochs


def may_share(varied: Iterable[str]) -> bool:
    """Whether points that differ in these keys may share epochs."""
    return any(may_share_epochs(key_of(key)) for key in varied)


def side_by_side(jobs: Sequence[Sequence[str]]) -> list[int]:
    """The places of the jobs in an order in which those that may share epochs are far apart: they wait for each other."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        trunk = tuple(text for text in job if not may_share_epochs(key_of(text)))
        alike.setdefault(trunk, []).append(place)
    rounds = itertools.zip_longest(*alike.values())
    return [place for places in rounds for place in places if place is not None]


def describe(epochs: Epochs) -> str:
    """How many epochs were trained, and how many were not, because points share them."""
    return f"{counted(epochs.trained, 'epoch')} trained, {epochs.saved:,} saved: points continued others from the last epoch that they share"
