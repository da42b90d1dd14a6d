"""The study in memory that Optuna's samplers and pruners see: one trial per point, in the order of the points.

Their choices depend on the order and the number of all trials. This study has those of an uninterrupted search, so an
interrupted search continues with the same trials. It grows with the search, because copying all trials takes long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.sweep.samplers import Spec, make_pruner, make_sampler

REPLAYED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class Replay:
    """The trials of a search, in memory; the number of a trial is that of its point."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._clear()

    def _clear(self) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=self.spec.name,
            directions=self.spec.directions,
            pruner=make_pruner(self.spec),
        )
        self._numbers: dict[int, int] = {}  # point -> number of its trial in the database
        self._ended: set[int] = set()  # points whose trials do not change any more

    def suggest(self, point: int, latest: Mapping[int, FrozenTrial]) -> FrozenTrial:
        """A trial with the sampler's choice for a point, after the trials of the points before it."""
        if len(self._study.get_trials(deepcopy=False)) > point:
            self._clear()
        self._update(latest, point)
        self._study.sampler = make_sampler(self.spec, point)
        self._study.ask(fixed_distributions=dict(self.spec.space))
        return self._study.get_trials(deepcopy=False)[point]

    def prune(self, point: int, latest: Mapping[int, FrozenTrial]) -> tuple[bool, Mapping[str, Any]]:
        """(whether the pruner stops the trial of a point here, the notes of sampler and pruner on it)."""
        self._update(latest, max(latest) + 1)
        stops = self._study.pruner.prune(self._study, self._study.get_trials(deepcopy=False)[point])
        return stops, self._study.get_trials(deepcopy=False)[point].system_attrs

    def _update(self, latest: Mapping[int, FrozenTrial], end: int) -> None:
        """Bring the trials of the points below `end` up to date."""
        found = {point: latest[point] for point in latest if latest[point].state in REPLAYED}
        if any(number != (found[point].number if point in found else None) for point, number in self._numbers.items()):
            self._clear()  # another attempt at a point that was run before
        known = self._study.get_trials(deepcopy=False)
        for point in sorted(set(range(end)) - self._ended):
            trial = found.get(point) or create_trial(state=TrialState.RUNNING)  # it has not started, or it failed
            if point < len(known):
                self._complete(known[point], trial)
            else:
                self._study.add_trial(trial)
            if point in found:
                self._numbers[point] = trial.number
            if trial.state.is_finished():
                self._ended.add(point)

    def _complete(self, known: FrozenTrial, trial: FrozenTrial) -> None:
        """Add to a running trial in memory what has been stored since."""
        trial_id = known._trial_id
        for key in trial.params.keys() - known.params.keys():
            distribution = trial.distributions[key]
            self._storage.set_trial_param(trial_id, key, distribution.to_internal_repr(trial.params[key]), distribution)
        for step in trial.intermediate_values.keys() - known.intermediate_values.keys():
            self._storage.set_trial_intermediate_value(trial_id, step, trial.intermediate_values[step])
        for key, value in trial.system_attrs.items():
            self._storage.set_trial_system_attr(trial_id, key, value)
        if trial.state.is_finished():
            self._storage.set_trial_state_values(trial_id, trial.state, trial.values)
