"""A grid: the launcher trains its points, as far as the budget lasts."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.comparison.points import Point
from experiments.sweep import times
from experiments.sweep.budget import Budget
from experiments.sweep.costs import Costs
from experiments.sweep.jobs import GridJob, waiting_point
from experiments.sweep.multirun import Multirun


def train(multirun: Multirun, jobs: Sequence[Sequence[str]], costs: Costs) -> list[Point]:
    """Train the points with these overrides; those for which there was no time have the status "not started"."""
    budget = Budget.start(multirun.config, multirun.folder, multirun.workers)
    parent = multirun.parent.run_id if multirun.parent else None
    job = GridJob(multirun.folder, parent, multirun.varied, budget, costs)
    waiting = {times.key(overrides): overrides for overrides in jobs}
    order = times.repetitions_last(waiting) if budget.limited else waiting
    points = {key: costs.of(waiting[key]) for key in order}
    outcomes: list[Point] = []
    with multirun.progress(budget, points):
        for batch in budget.batches(points):
            multirun.clock.keeping = True
            outcomes += multirun.train([waiting.pop(key) for key in batch], job)
    outcomes += [waiting_point(overrides, multirun.varied) for overrides in waiting.values()]
    budget.tell(outcomes)
    return outcomes
