"""The end of a multirun: its winner is tested, its points are compared, the results are stored and printed.

finalize(multirun, outcomes)
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.comparison.points import Point
from experiments.config.foreign import MASK, say
from experiments.config.keys import standalone_overrides
from experiments.runs.journal import left_in
from experiments.runs.outbox import send_left
from experiments.sweep.jobs import TestJob
from experiments.sweep.multirun import Multirun
from experiments.sweep.sharing import describe

if TYPE_CHECKING:
    from experiments.comparison.comparison import Comparison
    from experiments.sweep.parent_run import Parent

ENDED = ("finished", "pruned", "failed")
log = logging.getLogger(__name__)


def finalize(multirun: Multirun, outcomes: Sequence[Point]) -> None:
    """Evaluate the winner on the test set, store and print the comparison; exit with code 1 if points failed."""
    from experiments.comparison.comparison import Comparison  # imports pandas

    objectives, stored = multirun.config.sweep.objectives, multirun.parent
    comparison = Comparison(multirun.name, multirun.command, _points(multirun, outcomes), objectives)
    if multirun.config.evaluate_test is None and (multirun.parent or not stored):  # a lost server has the model to test
        comparison = _with_tests(multirun, comparison)
    _store(multirun, comparison)
    _end_sharing(multirun, go_on=any(point.status in ("not started", "killed") for point in outcomes))
    if stored and not multirun.parent:
        report, command = multirun.folder / "report/report.html", multirun.command.resumed()
        what = f"the ranking and some of its points; {report} has them"
        say(f"not sent to the MLflow server: {what}, this sends them and tests the winner:  {command}")
    if comparison.failed:
        sys.exit(1)


def _end_sharing(multirun: Multirun, go_on: bool) -> None:
    """Delete what the points shared, unless some of them `go_on` later; store and print how many epochs were trained and saved."""
    from experiments.reports import terminal  # imports torch

    epochs = multirun.pool.totals
    if not go_on:
        multirun.pool.delete()
    if multirun.parent:
        with _or_without(multirun):
            multirun.parent.count_epochs(epochs)
    if epochs.saved:
        terminal.console.print(f"\n{describe(epochs)}")


def _with_tests(multirun: Multirun, comparison: Comparison) -> Comparison:
    """The comparison after every run of the winner has been evaluated on the test set; those that have been are not again."""
    points, runs, reasons = list(comparison.points), comparison.winner.finished if comparison.winner else [], []
    for run in runs:
        if "test/loss" in run.metrics:
            continue
        tested = _test(multirun, run)
        if tested.status == "finished" and tested.run_id == run.run_id:
            points[points.index(run)] = dataclasses.replace(run, metrics={**run.metrics, **tested.metrics})
        else:
            reasons.append(tested.reason or "it trained another run")
    some = "the winner" if len(reasons) == len(runs) else f"{len(reasons)} of the winner's {len(runs)} runs"
    untested = f"The evaluation of {some} on the test set failed: {reasons[0]}." if reasons else ""
    return dataclasses.replace(comparison, points=points, untested=untested)


def _test(multirun: Multirun, run: Point) -> Point:
    """Evaluate a run on the test set."""
    from experiments.runs.provenance import ParentRun  # imports torch

    overrides = standalone_overrides(run.overrides)
    parent = ParentRun(multirun.parent.run_id if multirun.parent else None, run.name, run.run_id)
    # MLflow has no passwords: the job reads the configuration of the run and needs none
    composed = [text for text in overrides if MASK not in text]
    return multirun.run_jobs([composed], TestJob(multirun.folder, multirun.config, parent, tuple(overrides)))[0]


def _points(multirun: Multirun, outcomes: Sequence[Point]) -> list[Point]:
    """All points in MLflow, and those that failed before MLflow had a run of them."""
    if multirun.parent is None:
        return list(outcomes)
    failed = {point.name: point for point in outcomes if point.status == "failed"}
    _say_which_are_one_run(outcomes)
    now = {point.run_id: point for point in outcomes}
    waiting = [point for point in outcomes if point.status == "not started"]
    stored = _stored(multirun, multirun.parent, outcomes)
    if multirun.parent is None:
        return list(outcomes)
    known = [point for point in stored if point.status in ENDED or point.name not in failed]
    names = {point.name for point in known}
    # A run found again may have been trained by other overrides: in a folder that was renamed since, for example.
    known = [
        dataclasses.replace(point, settings=now[point.run_id].settings, overrides=now[point.run_id].overrides)
        if point.run_id in now
        else point
        for point in known
    ]
    return known + [point for point in (*failed.values(), *waiting) if point.name not in names]


@contextlib.contextmanager
def _or_without(multirun: Multirun) -> Iterator[None]:
    """If the MLflow server does not answer in this block, the multirun ends as one without MLflow."""
    from experiments.runs.server import Unreachable  # takes time

    try:
        yield
    except Unreachable:
        multirun.parent = None


def _stored(multirun: Multirun, parent: Parent, outcomes: Sequence[Point]) -> Sequence[Point]:
    """The points as MLflow has them; none if its server does not answer, or lacks something of them."""
    used: dict[str, set[str]] = {}
    for point in outcomes:
        used.setdefault(point.name, set()).update(filter(None, [point.run_id]))
    with _or_without(multirun):
        runs = {*(child.run_id for child in parent.children()), *(point.run_id for point in outcomes)}
        left = left_in(Path(multirun.config.outputs), runs)  # also of trials that an earlier command has trained
        if not left or send_left(left, parent.uri):
            return parent.points(used)
    multirun.parent = None
    return ()


def _store(multirun: Multirun, comparison: Comparison) -> None:
    """Write the report, close the parent run, print the ranking."""
    from experiments.comparison import terminal  # imports torch
    from experiments.comparison.page import write  # imports matplotlib

    write(multirun.folder / "report", comparison)
    where = str(multirun.folder / "report/report.html")
    if multirun.parent:
        with _or_without(multirun):
            multirun.parent.finalize(comparison, multirun.folder / "report")
            where += f", or {multirun.parent.url()}"
    terminal.show_comparison(comparison, where)


def _say_which_are_one_run(outcomes: Sequence[Point]) -> None:
    """Say which overrides describe one run: with equal images and settings, for example in a copy of a folder."""
    words: dict[str, list[str]] = {}
    for point in outcomes:
        if point.run_id:
            words.setdefault(point.run_id, []).append(" ".join(point.overrides))
    for same in words.values():
        if len(names := list(dict.fromkeys(same))) > 1:
            log.warning("one run, because settings and images are equal: %s", "; ".join(names))
