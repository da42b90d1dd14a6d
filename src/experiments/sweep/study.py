"""Optuna's study as the list of a search's trials.

All of them wait in the study from the start, so that however many workers there are, on however many machines, none is
taken twice and their number is what was asked for: the database hands each of them out once.
"""

from __future__ import annotations

import contextlib
import random
import socket
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import filelock
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from experiments.comparison.points import Point
from experiments.config import UserError
from experiments.config.metrics import higher_is_better
from experiments.sweep.samplers import GRID, Spec, connect, make_pruner, make_sampler
from experiments.sweep.space import Space, grid
from experiments.sweep.workers import alive, any_alive

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
DIED = "its process ended without a word: killed, or out of memory"
SEEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that a worker has taken; `point` counts without those that only repeat one."""

    number: int
    point: int
    params: Mapping[str, Any]


class Study:
    """The trials of a search, as they were left, or from the beginning (`anew`).

    One that is told as failed leaves another in its place, which is the first to be taken.

    Raises:
        UserError: where the database cannot be used, or holds a search of another kind under this name.
    """

    def __init__(self, spec: Spec, anew: bool = False) -> None:
        self.spec = spec
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if higher_is_better(objective) else down for objective in spec.objectives]
        self._storage = connect(spec.storage)
        if anew:
            with contextlib.suppress(KeyError):  # there was none
                optuna.delete_study(study_name=spec.name, storage=self._storage)
        self._study = optuna.create_study(
            storage=self._storage, study_name=spec.name, directions=directions, load_if_exists=True
        )
        self._study_id = self._storage.get_study_id_from_name(spec.name)
        self._deaths: Counter[int] = Counter()  # of the workers of each point, since this process looks
        self._agree({"objectives": list(spec.objectives), **{key: str(found) for key, found in spec.space.items()}})

    def _agree(self, asked: Mapping[str, Any]) -> None:
        """See that this is the search that the study was made for: trials of two spaces cannot be compared."""
        known = self._study.user_attrs.get("searched")
        if known is None:
            self._study.set_user_attr("searched", dict(asked))
        elif different := [key for key in {**known, **asked} if known.get(key) != asked.get(key)]:
            raise UserError(
                f"{', '.join(different)}: the search of this name had something else there; give this one a sweep.name"
            )

    def prepare(self, others: bool) -> None:
        """Let as many trials wait as are missing. `others`: processes on other machines may be at work too."""
        self.bury(others)
        latest = self._latest()
        for trial in latest.values():
            if trial.state == TrialState.FAIL:
                self._wait(trial.user_attrs["point"], trial)
        if self.spec.sampler["_target_"] == GRID:
            points = grid(self.spec.space)
            random.Random(self.spec.sampler.get("seed")).shuffle(points)
            for number, params in enumerate(points[: self.spec.n_trials]):
                if number not in latest:
                    self._study.add_trial(_waiting(number, params, self.spec.space))
        else:
            for number in range(self.spec.n_trials):
                if number not in latest:
                    self._study.add_trial(_waiting(number, {}, {}))

    def bury(self, others: bool) -> None:
        """Tell as failed those trials whose worker is dead, and let others wait in their place.

        A point whose workers have died three times is left as failed.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            host, _, mark = trial.user_attrs.get("worker", "").partition("/")
            if host == socket.gethostname():
                dead = not alive(self.spec.folder / mark)
            elif host:
                dead = not others
            else:  # it died, or is, between taking the trial and saying so
                assert trial.datetime_start
                dead = datetime.now() - trial.datetime_start > timedelta(seconds=30) or not any_alive(self.spec.folder)
            if dead:
                point = trial.user_attrs["point"]
                self._deaths[point] += 1
                self._storage.set_trial_user_attr(self._id(trial.number), "reason", DIED)
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                if self._deaths[point] < 3:
                    self._wait(point, trial)

    @property
    def died(self) -> list[Mapping[str, Any]]:
        """The parameters of the points that were given up because their workers died."""
        latest = self._latest().values()
        return [
            trial.params
            for trial in latest
            if trial.state == TrialState.FAIL and trial.user_attrs.get("reason") == DIED
        ]

    def _wait(self, point: int, failed: FrozenTrial) -> None:
        known = failed.params.keys() == self.spec.space.keys()
        # What the sampler noted when it chose is kept; what a pruner noted, it notes again.
        noted = {key: value for key, value in failed.system_attrs.items() if not key.startswith("completed_rung")}
        again = create_trial(
            state=TrialState.WAITING,
            params=failed.params if known else {},
            distributions=failed.distributions if known else {},
            system_attrs=noted if known else {},
            user_attrs={"point": point, "retry_of": failed.number},
        )
        self._study.add_trial(again)

    @property
    def under_way(self) -> bool:
        """Whether any worker is at one of the trials."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @property
    def waiting(self) -> list[FrozenTrial]:
        """Trials that nobody has taken, in the order in which they are to be taken."""
        found = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        found = [trial for trial in found if trial.user_attrs["point"] < self.spec.n_trials]
        return sorted(found, key=lambda trial: ("retry_of" not in trial.user_attrs, trial.user_attrs["point"]))

    def take(self, worker: str) -> ClaimedTrial | None:
        """The next trial, for this worker alone, with its parameters; None where there is no more."""
        for waiting in self.waiting:
            point, trial_id = waiting.user_attrs["point"], self._id(waiting.number)
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                if self._become_running(trial_id):
                    self._storage.set_trial_user_attr(trial_id, "worker", worker)
                    params = dict(waiting.params) or self._ask(point, trial_id)
                    return ClaimedTrial(waiting.number, point, params)
        return None

    def _become_running(self, trial_id: int) -> bool:
        """False where another worker was faster. SQLite alone would hand a trial out twice: it locks no rows."""
        with filelock.FileLock(self.spec.folder / "take.lock"):
            return self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)

    def _ask(self, point: int, trial_id: int) -> dict[str, Any]:
        """Let the sampler choose, and write down what it chose, and what it needs to know of it later."""
        seen = self._seen(point)
        asked = seen.ask(fixed_distributions=dict(self.spec.space))
        for key, value in asked.params.items():
            distribution = self.spec.space[key]
            self._storage.set_trial_param(trial_id, key, distribution.to_internal_repr(value), distribution)
        self._copy_attributes(seen.trials[asked.number], trial_id)
        return asked.params

    def report(self, taken: ClaimedTrial, epoch: int, value: float) -> bool:
        """Take note of an epoch's value; True where the pruner gives the trial up."""
        trial_id = self._id(taken.number)
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        seen = self._seen(taken.point, self._storage.get_trial(trial_id))
        trial = seen.trials[taken.point]
        hopeless = seen.pruner.prune(seen, trial)
        self._copy_attributes(seen.trials[taken.point], trial_id)
        return hopeless

    def _seen(self, point: int, itself: FrozenTrial | None = None) -> optuna.Study:
        """The study as samplers and pruners see it: a trial a point, in their order, with `itself` at its place.

        What they choose depends on order and number of all trials. Here those are what they are where nothing was
        ever interrupted, so a search that was cut goes on to the same trials as one that was not.
        """
        seen = optuna.create_study(
            study_name=self.spec.name, directions=self._study.directions, sampler=make_sampler(self.spec, point),
            pruner=make_pruner(self.spec),
        )  # fmt: skip
        latest = self._latest()
        nothing = create_trial(state=TrialState.FAIL)
        for number in range(point):
            trial = latest.get(number, nothing)
            seen.add_trial(trial if trial.state in SEEN else nothing)
        if itself:
            seen.add_trial(itself)
            seen.add_trials(trial for number, trial in latest.items() if number > point and trial.state in SEEN)
        return seen

    def _latest(self) -> dict[int, FrozenTrial]:
        """The last trial of each point."""
        return {trial.user_attrs["point"]: trial for trial in self._study.get_trials(deepcopy=False)}

    def _copy_attributes(self, seen: FrozenTrial, trial_id: int) -> None:
        known = self._storage.get_trial(trial_id).system_attrs
        for key, value in seen.system_attrs.items():
            if known.get(key) != value:
                self._storage.set_trial_system_attr(trial_id, key, value)

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def tell(self, taken: ClaimedTrial, point: Point) -> None:
        """What came of a trial."""
        trial_id = self._id(taken.number)
        for key, value in (("run_id", point.run_id), ("name", point.name), ("reason", point.reason)):
            self._storage.set_trial_user_attr(trial_id, key, value)
        values = [point.value(objective) for objective in self.spec.objectives]
        if point.status == "pruned":
            self._study.tell(taken.number, state=TrialState.PRUNED)
        elif point.status == "finished" and None not in values:
            known = self._storage.get_trial(trial_id).intermediate_values
            for epoch, reached in enumerate(point.history.get(self.spec.objectives[0], ()), start=1):
                if epoch not in known and len(values) == 1:  # it was run before, and told nothing while it ran
                    self._storage.set_trial_intermediate_value(trial_id, epoch, reached)
            self._study.tell(taken.number, values)  # type: ignore[arg-type]
        else:
            self._study.tell(taken.number, state=TrialState.FAIL)


def _waiting(point: int, params: Mapping[str, Any], space: Space) -> FrozenTrial:
    return create_trial(
        state=TrialState.WAITING, params=dict(params), distributions=dict(space), user_attrs={"point": point}
    )
