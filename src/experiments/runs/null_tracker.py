"""A run without MLflow (tracking=none): the methods of `tracker.Tracker`, without importing MLflow, which takes a second."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.data import Splits
from experiments.files.atomic import atomic_write
from experiments.models.classifier import Classifier

if TYPE_CHECKING:
    from experiments.runs.checkpoint import State


DIGEST = "sha256"  # the key in results.json that has the digest of the results and of the history
log = logging.getLogger(__name__)


class NullTracker:
    """Writes the results of a run to `folder` only; with `resume`, a finished run is found there."""

    run_id = "none"
    has_model, unsent = False, ""
    threads = 0  # not known

    def __init__(self, folder: Path, name: str, resume: bool) -> None:
        self._results = folder / "results.json"
        self.folder, self._history = folder, folder / "artifacts/history.csv"
        self.name = name
        self.finished = resume and self._results.exists() and self._is_whole()
        if not self.finished:
            self._results.unlink(missing_ok=True)
        self.tested = self.finished and "test/loss" in self.results()

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        pass

    def fork(self, origin: str) -> None:
        pass

    def results(self) -> dict[str, float]:
        return {name: value for name, value in json.loads(self._results.read_text()).items() if name != DIGEST}

    def history(self) -> list[dict[str, float]]:
        return read_history(self._history.parent)

    def _is_whole(self) -> bool:
        """Whether the results and the history are those that were written."""
        try:
            whole = json.loads(self._results.read_text())[DIGEST] == self._digest(self.results())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # any content is possible
            whole = False
        if not whole:
            log.warning("%s is damaged and not used: the run is evaluated again", self._results)
        return whole

    def _digest(self, results: Mapping[str, float]) -> str:
        return hashlib.sha256(json.dumps(dict(results)).encode() + self._history.read_bytes()).hexdigest()

    def restore(self, state: State) -> bool:
        return False

    def finish(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None:
        with atomic_write(self._results) as file:
            file.write(json.dumps({**results, DIGEST: self._digest(results)}).encode())
        self.finished = True

    def keep(self, results: Mapping[str, float], artifacts: Path, model: Classifier, splits: Splits) -> None:
        pass

    def reopen(self) -> None:
        self.finished = self.tested = False
        self._results.unlink(missing_ok=True)

    def prune(self, why: str, results: Mapping[str, float]) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        pass

    def url(self) -> str:
        return str(self.folder / "artifacts/report.html")


def read_history(artifacts: Path) -> list[dict[str, float]]:
    """The metrics of each epoch of a finished run, from its history.csv."""
    with (artifacts / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if name != "epoch" and value} for row in rows]
