"""The trials of a search, in Optuna's database.

A trial is stored when a worker claims it, and each is claimed once. So exactly the requested number of trials is run, by
any number of workers on any number of machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.comparison.points import Point
from experiments.config.metrics import higher_is_better
from experiments.sweep.budget import Budget
from experiments.sweep.jobs import TERMINATED
from experiments.sweep.replay import Replay
from experiments.sweep.rungs import Rungs, Time
from experiments.sweep.samplers import Spec, make_pruner, open_storage, planned
from experiments.sweep.trials import LOSSES, SECONDS, ClaimedTrial, is_last, repeated, rung_of
from experiments.sweep.workers import is_stale

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Study:
    """The trials of a search: those in the database, or new ones (`anew`).

    Attributes:
        rungs: the epochs after which trials are compared, and the best go on; empty without.

    Raises:
        UserError: the database cannot be used.
    """

    def __init__(self, spec: Spec, budget: Budget, anew: bool = False) -> None:
        self._storage = open_storage(spec.storage)
        if anew:
            with contextlib.suppress(KeyError):  # there was none
                optuna.delete_study(study_name=spec.name, storage=self._storage)
        self._study = optuna.create_study(
            storage=self._storage, study_name=spec.name, directions=spec.directions, load_if_exists=True
        )
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        self.budget = budget
        self._deaths: Counter[int] = Counter()  # workers that died, per point, seen by this process
        self._finishing = set[int]()  # points that train as long as the time lasts, of this process
        self.spec = dataclasses.replace(spec, space={key: spec.space[key] for key in self._order(list(spec.space))})
        pruner = make_pruner(spec)
        self._rungs = pruner if isinstance(pruner, Rungs) else Rungs(epochs=1)
        self.rungs = self._rungs.ends
        self._asks_pruner = not isinstance(pruner, Rungs | optuna.pruners.NopPruner)
        self._replay = Replay(self.spec)
        self._planned = planned(self.spec)

    def _order(self, keys: list[str]) -> list[str]:
        """The keys in the order of the first command: a sampler draws in this order, and a later command may differ."""
        if "order" not in self._study.user_attrs:
            self._study.set_user_attr("order", keys)
        order: list[str] = self._study.user_attrs["order"]
        return order

    def fill_queue(self, others: bool) -> None:
        """Enqueue the failed trials again. `others`: other machines may take part."""
        self.fail_stale(others)
        for trial in self._latest().values():
            if trial.state == TrialState.FAIL:
                self._enqueue(trial, last=is_last(trial))

    def fail_stale(self, others: bool) -> None:
        """Mark the trials of dead workers as failed and enqueue retries; none after three deaths of a point's workers."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_stale(trial.user_attrs.get("worker", ""), trial.datetime_start, self.spec.folder, others):
                point = trial.user_attrs["point"]
                self._deaths[point] += 1
                self._storage.set_trial_user_attr(trial._trial_id, "reason", TERMINATED)
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                if self._deaths[point] < 3:
                    self._enqueue(trial, last=is_last(trial))

    def _enqueue(self, ended: FrozenTrial, rungs: int = 0, last: bool = False) -> None:
        """Enqueue a trial again, with the same parameters; `rungs` higher than before."""
        self._study.add_trial(repeated(ended, self.spec.space, rung_of(ended) + rungs, last))

    def promote(self) -> bool:
        """Enqueue the trials that go on to their next rung, when no trial is running; returns whether there are any."""
        latest, promoted = self._latest(), self._promoted()
        for point, last in promoted.items():
            if last:
                self._finishing.add(point)
            self._enqueue(latest[point], rungs=0 if last else 1, last=last)
        return bool(promoted)

    def _promoted(self) -> Mapping[int, bool]:
        return self._rungs.promoted(self._latest(), self._sign, self._time, self._finishing)

    @property
    def _time(self) -> Time | None:
        """What is left for the rungs; None without rungs or a budget."""
        return Time.of(self.budget) if self.rungs and self.budget.limited else None

    @property
    def _sign(self) -> int:
        return 1 if higher_is_better(self.spec.objectives[0]) else -1

    @property
    def died(self) -> list[Mapping[str, Any]]:
        """The parameters of the points that were abandoned because their workers died."""
        failed = [trial for trial in self._latest().values() if trial.state == TrialState.FAIL]
        return [trial.params for trial in failed if trial.user_attrs.get("reason") == TERMINATED]

    @property
    def completed(self) -> bool:
        """Whether a trial has trained to its end."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    @property
    def has_running(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @property
    def continues(self) -> bool:
        """There are trials to claim now, or when those that are running have ended."""
        return self.open > 0 or len(self._promoted()) > 0 or (self.has_running and bool(self.rungs))

    @property
    def open(self) -> int:
        """The number of trials that workers can claim now."""
        return len(self._waiting()) + (self.not_started if self._may_start else 0)

    @property
    def not_started(self) -> int:
        """The number of trials that no worker has claimed so far."""
        return max(0, self.spec.total - len(self._latest()))

    @property
    def _may_start(self) -> bool:
        """Whether a new trial is expected to end in time; with rungs, in the share of the time that new trials have."""
        time = self._time
        return self._rungs.has_room(self._latest().values(), time) if time else self.budget.has_room

    def _waiting(self) -> list[FrozenTrial]:
        """The trials to run again that are expected to end in time."""
        found = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        found = [trial for trial in found if trial.user_attrs["point"] < self.spec.n_trials]
        if found and (time := self._time):
            first = not any(is_last(trial) and trial.state.is_finished() for trial in self._latest().values())
            return [trial for trial in found if self._rungs.fits(trial, time) or (first and is_last(trial))]
        return found if found and self.budget.has_room else []

    def claim(self, worker: str) -> ClaimedTrial | None:
        """The next trial, with its parameters, for this worker only; None if there is none."""
        # SQLite cannot lock rows: without this lock, two workers could claim a trial.
        with filelock.FileLock(self.spec.folder / "claim.lock"):
            trial = self._claim_waiting(worker) or self._start(worker)
        if trial is None:
            return None
        point, rung = trial.user_attrs["point"], rung_of(trial)
        params = trial.params or self._suggest(point, trial._trial_id)
        if not is_last(trial):
            return ClaimedTrial(trial.number, point, params, self._rungs.end(rung), promoted=rung > 0)
        time, trained = self._time, sum(trial.user_attrs[SECONDS])
        most = max(trained + time.left - time.around, 1.0) if time else None
        return ClaimedTrial(trial.number, point, params, promoted=True, seconds=most)

    def _claim_waiting(self, worker: str) -> FrozenTrial | None:
        """A trial that is run again."""
        for trial in self._waiting():
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    self._storage.set_trial_user_attr(trial._trial_id, "worker", worker)
                    return trial
        return None

    def _start(self, worker: str) -> FrozenTrial | None:
        """A new trial."""
        point = len(self._latest())
        if point >= self.spec.total or not self._may_start:
            return None
        params = self._planned(point)
        distributions, notes = (dict(self.spec.space) if params else {}), {"point": point, "worker": worker}
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(params), distributions=distributions, user_attrs=notes
        )
        return self._storage.get_trial(self._storage.create_new_trial(self._study_id, template_trial=trial))

    def _suggest(self, point: int, trial_id: int) -> dict[str, Any]:
        """The sampler's choice; stored, with the sampler's notes."""
        suggested = self._replay.suggest(point, self._latest())
        for key, value in suggested.params.items():
            distribution = self.spec.space[key]
            self._storage.set_trial_param(trial_id, key, distribution.to_internal_repr(value), distribution)
        self._store_notes(suggested.system_attrs, trial_id)
        return suggested.params

    def report(self, claimed: ClaimedTrial, epoch: int, value: float) -> bool:
        """Store the value of an epoch; returns whether the trial stops here."""
        trial_id = self._id(claimed.number)
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        if not self._asks_pruner:
            return epoch == claimed.until
        stops, notes = self._replay.prune(claimed.point, self._latest())
        self._store_notes(notes, trial_id)
        return stops

    def _latest(self) -> dict[int, FrozenTrial]:
        """The last trial of each point."""
        return {trial.user_attrs["point"]: trial for trial in self._study.get_trials(deepcopy=False)}

    def _store_notes(self, notes: Mapping[str, Any], trial_id: int) -> None:
        """Store what sampler and pruner read again later."""
        known = self._storage.get_trial(trial_id).system_attrs
        for key, value in notes.items():
            if known.get(key) != value:
                self._storage.set_trial_system_attr(trial_id, key, value)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def finish(self, claimed: ClaimedTrial, point: Point) -> None:
        """Store the outcome of a trial."""
        trial_id = self._id(claimed.number)
        notes = {"run_id": point.run_id, "name": point.name, "reason": point.reason}
        for key, note in {**notes, **{key: list(point.history.get(key, ())) for key in (LOSSES, SECONDS)}}.items():
            self._storage.set_trial_user_attr(trial_id, key, note)
        values = [point.value(objective) for objective in self.spec.objectives]
        if point.status == "pruned" or point.cut_short:  # which goes on with more time
            self._study.tell(claimed.number, state=TrialState.PRUNED)
        elif point.status == "finished" and None not in values:
            known = self._storage.get_trial(trial_id).intermediate_values
            for epoch, value in enumerate(point.history.get(self.spec.objectives[0], ()), start=1):
                if epoch not in known and len(values) == 1:  # the run had finished before and reported no epochs
                    self._storage.set_trial_intermediate_value(trial_id, epoch, value)
            self._study.tell(claimed.number, values)  # type: ignore[arg-type]
        else:
            self._study.tell(claimed.number, state=TrialState.FAIL)
