"""What the points of a grid cost before they start, from the configurations of its values, not of all their combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.config import Config
from experiments.runs.identity import compose_values
from experiments.sweep.estimate import Cost


@dataclass(frozen=True)
class Costs:
    """The costs of a grid: each value multiplies the work, as it does where only this value is changed.

    Attributes:
        reference: of one point.
        changed: override -> the cost of that point with this override.
    """

    reference: Cost
    changed: Mapping[str, Cost]

    def of(self, overrides: Sequence[str]) -> Cost:
        """The cost of a point."""
        base, found = self.reference, [self.changed[text] for text in overrides if text in self.changed]

        def last(name: str) -> int:
            values = [getattr(one, name) for one in found if getattr(one, name) != getattr(base, name)]
            return int(values[-1]) if values else int(getattr(base, name))

        work = math.prod((one.work / base.work for one in found), start=base.work)
        steps = math.prod((one.steps / base.steps for one in found), start=base.steps)
        epochs = last("epochs")
        return Cost(work, steps, epochs, min(last("least"), epochs))


def cost_of(config: Config, work: float = 1.0, steps: float = 1.0, pruned: bool = False) -> Cost:
    """`pruned`: a pruner may end the point after any epoch."""
    epochs, patience = config.training.epochs, config.early_stopping.patience
    least = 1 if pruned else epochs if patience is None else min(epochs, patience + 1)
    return Cost(work, steps, epochs, least)


def costs_of(choices: Mapping[str, Sequence[str]]) -> Costs:
    """The costs of a grid with these overrides to choose from, by key."""
    changing = [value for values in choices.values() for value in values if len(values) > 1]
    reference, *others = _costs(compose_values(choices))
    return Costs(reference, dict(zip(changing, others, strict=True)))


def _costs(configs: Sequence[Config]) -> list[Cost]:
    if len({(str(one.model), str(one.data), one.training.batch_size) for one in configs}) == 1:
        return [cost_of(one) for one in configs]
    from experiments.runs.work import multiply_adds, steps  # import torch

    works = multiply_adds(configs)
    return [cost_of(one, work, count) for one, work, count in zip(configs, works, steps(configs))]
