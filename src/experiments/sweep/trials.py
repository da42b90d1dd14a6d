"""What a search notes with a trial in Optuna's database, and a trial that a worker has claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

LOSSES, SECONDS = "val/loss", "epoch_seconds"  # attributes: of each of its epochs; the loss decides ties
LAST = "last"  # attribute


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that belongs to one worker.

    Attributes:
        number: of the trial in the database; a retry has a different number.
        point: number of the point; its retries have the same.
        until: the epoch after which it waits for the other trials of its rung; None without one.
        promoted: it has waited at the end of a rung, and continues.
        seconds: the time for all its epochs, after which its training ends; None without a limit.
    """

    number: int
    point: int
    params: Mapping[str, Any]
    until: int | None = None
    promoted: bool = False
    seconds: float | None = None


def rung_of(trial: FrozenTrial) -> int:
    """The rung at whose end a trial waits, or that it is on."""
    return int(trial.user_attrs.get("rung", 0))


def is_last(trial: FrozenTrial) -> bool:
    """Whether it trains to its end, or as long as the time lasts."""
    return bool(trial.user_attrs.get(LAST))


def repeated(ended: FrozenTrial, space: Mapping[str, BaseDistribution], rung: int, last: bool) -> FrozenTrial:
    """A trial that waits for a worker, with the parameters of one that has ended."""
    # The notes of the sampler on its choice are kept; a pruner writes its notes again.
    notes = {key: value for key, value in ended.system_attrs.items() if not key.startswith("completed_rung")}
    known: dict[str, Any] = {"params": ended.params, "distributions": dict(space), "system_attrs": notes}
    if ended.params.keys() != space.keys():  # it ended before the sampler's choice was stored
        known = {}
    again = {"point": ended.user_attrs["point"], "retry_of": ended.number, "rung": rung}
    again |= {SECONDS: ended.user_attrs.get(SECONDS, []), LAST: last}
    return create_trial(state=TrialState.WAITING, user_attrs=again, **known)
