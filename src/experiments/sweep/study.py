"""The trials of a search, in Optuna's database.

All trials are enqueued at the start, and each is claimed once. So exactly the requested number of trials is run, by any
number of workers on any number of machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import socket
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import filelock
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.comparison.points import Point
from experiments.config.metrics import higher_is_better
from experiments.sweep.jobs import TERMINATED
from experiments.sweep.samplers import GRID, Spec, make_pruner, make_sampler, open_storage
from experiments.sweep.space import combinations
from experiments.sweep.workers import any_alive, is_alive

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
REPLAYED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that belongs to one worker.

    Attributes:
        number: of the trial in the database; a retry has a different number.
        point: number of the point; its retries have the same.
    """

    number: int
    point: int
    params: Mapping[str, Any]


class Study:
    """The trials of a search: those in the database, or new ones (`anew`).

    Raises:
        UserError: the database cannot be used.
    """

    def __init__(self, spec: Spec, anew: bool = False) -> None:
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if higher_is_better(objective) else down for objective in spec.objectives]
        self._storage = open_storage(spec.storage)
        if anew:
            with contextlib.suppress(KeyError):  # there was none
                optuna.delete_study(study_name=spec.name, storage=self._storage)
        self._study = optuna.create_study(
            storage=self._storage, study_name=spec.name, directions=directions, load_if_exists=True
        )
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        self._deaths: Counter[int] = Counter()  # workers that died, per point, seen by this process
        self.spec = dataclasses.replace(spec, space={key: spec.space[key] for key in self._order(list(spec.space))})

    def _order(self, keys: list[str]) -> list[str]:
        """The keys in the order of the first command: a sampler draws in this order, and a later command may differ."""
        if "order" not in self._study.user_attrs:
            self._study.set_user_attr("order", keys)
        order: list[str] = self._study.user_attrs["order"]
        return order

    def fill_queue(self, others: bool) -> None:
        """Enqueue the missing trials and retries of the failed ones. `others`: other machines may take part."""
        self.fail_stale(others)
        latest = self._latest()
        for trial in latest.values():
            if trial.state == TrialState.FAIL:
                self._retry(trial)
        for point, params in enumerate(self._initial_params()):
            if point not in latest:
                self._enqueue(point, params)

    def _initial_params(self) -> Sequence[Mapping[str, Any]]:
        """The parameters of each point if they are known before it starts (in a grid), else empty."""
        if self.spec.sampler["_target_"] != GRID:
            return [{}] * self.spec.n_trials
        points = combinations(self.spec.space)
        random.Random(self.spec.sampler.get("seed")).shuffle(points)
        return points[: self.spec.n_trials]

    def fail_stale(self, others: bool) -> None:
        """Mark the trials of dead workers as failed and enqueue retries; none after three deaths of a point's workers."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_stale(trial, others):
                point = trial.user_attrs["point"]
                self._deaths[point] += 1
                self._storage.set_trial_user_attr(self._id(trial.number), "reason", TERMINATED)
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                if self._deaths[point] < 3:
                    self._retry(trial)

    def _is_stale(self, trial: FrozenTrial, others: bool) -> bool:
        host, _, file = trial.user_attrs.get("worker", "").partition("/")
        if host == socket.gethostname():
            return not is_alive(self.spec.folder / file)
        if host:
            return not others
        # its worker has not written its name: it will do so soon, or it died
        assert trial.datetime_start
        return datetime.now() - trial.datetime_start > timedelta(seconds=30) or not any_alive(self.spec.folder)

    def _retry(self, failed: FrozenTrial) -> None:
        complete = failed.params.keys() == self.spec.space.keys()
        # The notes of the sampler on its choice are kept; a pruner writes its notes again.
        notes = {key: value for key, value in failed.system_attrs.items() if not key.startswith("completed_rung")}
        params, notes = (failed.params, notes) if complete else ({}, {})
        self._enqueue(failed.user_attrs["point"], params, notes, retry_of=failed.number)

    def _enqueue(
        self, point: int, params: Mapping[str, Any], notes: Mapping[str, Any] | None = None, **attributes: Any
    ) -> None:
        self._study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=dict(params),
                distributions=dict(self.spec.space) if params else {},
                system_attrs=dict(notes or {}),
                user_attrs={"point": point, **attributes},
            )
        )

    @property
    def died(self) -> list[Mapping[str, Any]]:
        """The parameters of the points that were abandoned because their workers died."""
        failed = [trial for trial in self._latest().values() if trial.state == TrialState.FAIL]
        return [trial.params for trial in failed if trial.user_attrs.get("reason") == TERMINATED]

    @property
    def has_running(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @property
    def waiting(self) -> list[FrozenTrial]:
        """The trials that no worker has claimed, in the order in which they are claimed: retries first."""
        found = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        found = [trial for trial in found if trial.user_attrs["point"] < self.spec.n_trials]
        return sorted(found, key=lambda trial: ("retry_of" not in trial.user_attrs, trial.user_attrs["point"]))

    def claim(self, worker: str) -> ClaimedTrial | None:
        """The next trial, with its parameters, for this worker only; None if no trial is waiting."""
        for waiting in self.waiting:
            point, trial_id = waiting.user_attrs["point"], self._id(waiting.number)
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                if self._set_running(trial_id):
                    self._storage.set_trial_user_attr(trial_id, "worker", worker)
                    params = dict(waiting.params) or self._suggest(point, trial_id)
                    return ClaimedTrial(waiting.number, point, params)
        return None

    def _set_running(self, trial_id: int) -> bool:
        """False if another worker was faster. SQLite cannot lock rows: without this lock, two workers could claim a trial."""
        with filelock.FileLock(self.spec.folder / "claim.lock"):
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    def _suggest(self, point: int, trial_id: int) -> dict[str, Any]:
        """The sampler's choice; stored, with the sampler's notes."""
        study = self._replayed_study(point)
        asked = study.ask(fixed_distributions=dict(self.spec.space))
        for key, value in asked.params.items():
            distribution = self.spec.space[key]
            self._storage.set_trial_param(trial_id, key, distribution.to_internal_repr(value), distribution)
        self._store_notes(study.trials[asked.number], trial_id)
        return asked.params

    def report(self, claimed: ClaimedTrial, epoch: int, value: float) -> bool:
        """Store the value of an epoch; returns whether the pruner stops the trial here."""
        trial_id = self._id(claimed.number)
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        study = self._replayed_study(claimed.point, self._storage.get_trial(trial_id))
        should_prune = study.pruner.prune(study, study.trials[claimed.point])
        self._store_notes(study.trials[claimed.point], trial_id)
        return should_prune

    def _replayed_study(self, point: int, current: FrozenTrial | None = None) -> optuna.Study:
        """The study in memory that sampler and pruner see: one trial per point, in order, `current` at its place.

        Their choices depend on the order and the number of all trials. This study has those of an
        uninterrupted search, so an interrupted search continues with the same trials.
        """
        study = optuna.create_study(
            study_name=self.spec.name, directions=self._study.directions, sampler=make_sampler(self.spec, point),
            pruner=make_pruner(self.spec),
        )  # fmt: skip
        latest = self._latest()
        empty = create_trial(state=TrialState.FAIL)
        for number in range(point):
            trial = latest.get(number, empty)
            study.add_trial(trial if trial.state in REPLAYED else empty)
        if current:
            study.add_trial(current)
            study.add_trials(trial for number, trial in latest.items() if number > point and trial.state in REPLAYED)
        return study

    def _latest(self) -> dict[int, FrozenTrial]:
        """The last trial of each point."""
        return {trial.user_attrs["point"]: trial for trial in self._study.get_trials(deepcopy=False)}

    def _store_notes(self, replayed: FrozenTrial, trial_id: int) -> None:
        """Store the notes of sampler and pruner on a trial, which they read again later."""
        known = self._storage.get_trial(trial_id).system_attrs
        for key, value in replayed.system_attrs.items():
            if known.get(key) != value:
                self._storage.set_trial_system_attr(trial_id, key, value)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def finish(self, claimed: ClaimedTrial, point: Point) -> None:
        """Store the outcome of a trial."""
        trial_id = self._id(claimed.number)
        for key, text in (("run_id", point.run_id), ("name", point.name), ("reason", point.reason)):
            self._storage.set_trial_user_attr(trial_id, key, text)
        values = [point.value(objective) for objective in self.spec.objectives]
        if point.status == "pruned":
            self._study.tell(claimed.number, state=TrialState.PRUNED)
        elif point.status == "finished" and None not in values:
            known = self._storage.get_trial(trial_id).intermediate_values
            for epoch, value in enumerate(point.history.get(self.spec.objectives[0], ()), start=1):
                if epoch not in known and len(values) == 1:  # the run had finished before and reported no epochs
                    self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            self._study.tell(claimed.number, values)  # type: ignore[arg-type]
        else:
            self._study.tell(claimed.number, state=TrialState.FAIL)
