"""What a process that does not lead has in place of a tracker: rank 0 logs the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.data import Splits
from experiments.models.classifier import Classifier

if TYPE_CHECKING:
    from experiments.runs.checkpoint import State


class Following:
    """The methods of `tracker.Tracker` that all processes call; it knows and writes nothing."""

    run_id, name = "none", ""
    has_model, finished, tested = False, False, False
    unsent = ""
    threads = 0  # not known

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def restore(self, state: State) -> bool:
        return False

    def fork(self, origin: str) -> None: ...

    def finish(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None: ...

    def keep(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None: ...

    def prune(self, why: str, results: Mapping[str, float]) -> None: ...

    def results(self) -> dict[str, float]:
        return {}

    def history(self) -> list[dict[str, float]]:
        return []

    def url(self) -> str:
        return ""
