"""A run and its new training compared, epoch by epoch and by the SHA-256 of the weights; logged as a child run.

with reproducing(rebuilt):
    result = experiment.run(rebuilt.config, ...)
    verdict = compare(rebuilt, result.history, result.metrics)
    log_verdict(rebuilt, verdict)
"""

from __future__ import annotations

import contextlib
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from experiments.analysis.findings import Effect
from experiments.analysis.rebuilding import Rebuilt
from experiments.config.command_line import Command
from experiments.config.foreign import cell, mask_passwords
from experiments.config.keys import flatten
from experiments.config.metrics import EPOCH_METRICS
from experiments.config.wording import counted
from experiments.models.weights import Weights
from experiments.runs import evaluations, provenance, store
from experiments.runs.checkpoint_files import read
from experiments.runs.forks import evaluated_weights
from experiments.runs.lock import locked

TIMES = ("epoch_seconds", "images_per_second", "seconds")  # not compared
TOLERANCE = 0.01  # of the largest difference, so that rounding explains it


@dataclass(frozen=True)
class Row:
    """A metric of both trainings; `epoch`: 0 for those of the end."""

    epoch: int
    metric: str
    then: float
    now: float

    @property
    def difference(self) -> float:
        """0 for equal values; else absolute, and for values above 1 relative."""
        if self.then == self.now or (math.isnan(self.then) and math.isnan(self.now)):
            return 0.0
        difference = abs(self.then - self.now) / max(1.0, abs(self.then))
        return math.inf if math.isnan(difference) else difference

    def __str__(self) -> str:
        place = f"epoch {self.epoch}, " if self.epoch else ""
        return f"{place}{self.metric}: {self.then!r}, here {self.now!r}"


@dataclass(frozen=True)
class Verdict:
    """The result of a reproduction.

    Attributes:
        word: identical, equal within ..., or different.
        reason: in words.
        digest: SHA-256 of the new weights.
    """

    word: str
    reason: str
    rows: tuple[Row, ...]
    digest: str

    def __str__(self) -> str:
        return f"verdict: {self.word}: {self.reason}"


@contextlib.contextmanager
def reproducing(rebuilt: Rebuilt, leads: bool) -> Iterator[None]:
    """Lock the folder of a reproduction; `leads`: false in the other processes of torchrun.

    Raises:
        UserError: another process reproduces this run.
    """
    if not leads:
        yield
        return
    with locked(rebuilt.folder, Command(), "reproduction", "wait for it"):
        yield


def compare(rebuilt: Rebuilt, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]) -> Verdict:
    """Compare the original with the new training, which has left its checkpoint."""
    rows = tuple(_rows(rebuilt, history, metrics))
    before = Weights(rebuilt.recorded.logged.weights, "").digest()
    weights = Weights(_kept_weights(rebuilt), "").digest()
    unequal = [row for row in rows if row.difference]
    changes = ", ".join(rebuilt.of_effect(Effect.ROUNDING) + rebuilt.of_effect(Effect.NUMBERS))
    if not unequal and weights == before and len(history) == len(rebuilt.history):
        compared = f"{counted(len(history), 'epoch')}, {len({row.metric for row in rows})} metrics, weights"
        although = f", although there are changes: {changes}" if changes else ""
        return Verdict("identical", f"{compared} (SHA-256 {weights[:16]}){although}", rows, weights)
    digests = f"weights: SHA-256 {before[:16]}, here {weights[:16]}"
    first = f"{unequal[0]}; {digests}" if unequal else digests
    if len(history) != len(rebuilt.history):
        first = f"{len(rebuilt.history)} epochs, here {len(history)}; {first}"
    largest = max(unequal, key=lambda row: row.difference, default=None)
    if rebuilt.of_effect(Effect.ROUNDING) and len(history) == len(rebuilt.history):
        difference = largest.difference if largest else 0.0
        if difference <= TOLERANCE:
            return Verdict(f"equal within {difference:.2g}", f"{changes}; the first: {first}", rows, weights)
    return Verdict("different", f"{first}{f'; the largest: {largest}' if largest else ''}", rows, weights)


def _rows(rebuilt: Rebuilt, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]) -> Iterator[Row]:
    """Every metric that the original has."""
    for epoch, (then, now) in enumerate(zip(rebuilt.history, history), start=1):
        for name in EPOCH_METRICS:
            if name in then and name not in TIMES:
                yield Row(epoch, name, then[name], now.get(name, math.nan))
    final = {store.safe_name(name): value for name, value in metrics.items()}
    for name, value in sorted(rebuilt.recorded.run.data.metrics.items()):
        if name not in (*EPOCH_METRICS, *TIMES):
            yield Row(0, name, value, final.get(name, math.nan))


def _checkpoint(rebuilt: Rebuilt) -> Path:
    """That of the new training; a code change during a reproduction leaves several."""
    files = (rebuilt.folder / "training" / "runs").glob("*/checkpoint.pt")
    return max(files, key=lambda file: file.stat().st_mtime)


def _kept_weights(rebuilt: Rebuilt) -> Mapping[str, Tensor]:
    """The weights that the new training would log as its model."""
    content = read(_checkpoint(rebuilt))
    assert content is not None  # it was written by this process
    return content["best"] or evaluated_weights(content)


def log_verdict(
    rebuilt: Rebuilt, verdict: Verdict, history: Sequence[Mapping[str, float]], metrics: Mapping[str, float]
) -> str:
    """Log the new training and the comparison as a child run of the original, and return its id; then delete its checkpoint."""
    place = _checkpoint(rebuilt).parent
    text = mask_passwords(f"{rebuilt}\n{verdict}\n")
    (place / "artifacts" / "reproduction.txt").write_text(text, encoding="utf-8")
    with (place / "artifacts" / "comparison.csv").open("w", newline="", encoding="utf-8") as file:
        rows = ([row.epoch or "", cell(row.metric), row.then, row.now, row.difference] for row in verdict.rows)
        csv.writer(file).writerows([("epoch", "metric", "original", "reproduction", "difference"), *rows])
    assert rebuilt.here is not None
    part = rebuilt.here
    tags = {store.TAG_VERDICT: verdict.word, "weights_sha256": verdict.digest}
    tags |= provenance.provenance_tags() | {"mlflow.source.name": "scripts/reproduce.py"}
    tags |= {"machine": provenance.described(part.machine)}
    tags |= {store.TAG_THREADS: str(part.threads), store.TAG_PROCESSES: str(part.processes)}
    tags |= {store.TAG_TEST_SET_EVALUATIONS: str(int("test/loss" in metrics))}
    params = dict(flatten(rebuilt.config.to_dict()))
    child = evaluations.log_reproduction(rebuilt.recorded, params, history, metrics, tags, place / "artifacts")
    for path in (rebuilt.folder / "training").glob("*/*/*"):
        if path.is_file():  # the report stays
            path.unlink()
    return child
