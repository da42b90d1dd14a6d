"""Optuna's study as the list of a search's trials.

All of them wait in the study from the start, so that however many workers there are, on however many machines, none is
taken twice and their number is what was asked for: the database hands each of them out once.
"""

from __future__ import annotations

import contextlib
import random
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import optuna
from hydra.utils import instantiate
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from experiments import store
from experiments.config import UserError
from experiments.sweep.points import Point, higher_is_better
from experiments.sweep.space import Space, grid

optuna.logging.set_verbosity(optuna.logging.WARNING)
GRID = "optuna.samplers.GridSampler"


@dataclass(frozen=True)
class Spec:
    """All that a worker needs to take part; it travels to where the worker runs.

    Attributes:
        storage: address of the database.
        sampler, pruner: Optuna's class as `_target_`, and its arguments.
        folder: where workers of the same machine show that they are alive.
    """

    name: str
    storage: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    space: Space
    n_trials: int
    objectives: tuple[str, ...]
    folder: Path


class Study:
    """The trials of a search. One that is told as failed leaves another in its place, which is first to be taken.

    Raises:
        UserError: where the database cannot be used, or holds a search of another kind under this name.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        directions = [up if higher_is_better(objective) else down for objective in spec.objectives]
        self._storage = _connect(spec.storage)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=spec.name,
            directions=directions,
            load_if_exists=True,
            pruner=instantiate(dict(spec.pruner), _execution_whitelist_=("optuna.pruners.*",)),
        )
        if self._study.directions != directions:
            raise UserError("sweep.objectives: the search of this name had others; give it another sweep.name")

    def prepare(self, anew: bool, others: bool) -> None:
        """Let as many trials wait as are missing. `others`: processes on other machines may be at work too.

        Args:
            anew: forget what was there.
        """
        if anew:
            optuna.delete_study(study_name=self.spec.name, storage=self._storage)
            self.__init__(self.spec)  # type: ignore[misc]
        self.bury(others)
        latest = {trial.user_attrs["point"]: trial for trial in self._study.get_trials(deepcopy=False)}
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
        """Tell as failed those trials whose worker is dead, and let others wait in their place."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            host, _, mark = trial.user_attrs.get("worker", "").partition("/")
            if host == socket.gethostname():
                dead = not _alive(self.spec.folder / mark)
            elif host:
                dead = not others
            else:  # it died, or is, between taking the trial and saying so
                assert trial.datetime_start
                dead = datetime.now() - trial.datetime_start > timedelta(seconds=30) or not _any_alive(self.spec.folder)
            if dead:
                self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._wait(trial.user_attrs["point"], trial)

    def _wait(self, point: int, failed: FrozenTrial) -> None:
        known = failed.params if failed.params.keys() == self.spec.space.keys() else {}
        trial = _waiting(point, known, failed.distributions if known else {})
        trial.set_user_attr("retry_of", failed.number)
        self._study.add_trial(trial)

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

    def take(self, worker: str) -> Trial | None:
        """The next trial, for this worker alone, with its parameters; None where there is no more."""
        for waiting in self.waiting:
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    self._storage.set_trial_user_attr(waiting._trial_id, "worker", worker)
                    self._study.sampler = self._sampler(waiting.user_attrs["point"])
                    trial = Trial(self._study, waiting._trial_id)
                    for key, distribution in self.spec.space.items():
                        trial._suggest(key, distribution)
                    return trial
        return None

    def _sampler(self, point: int) -> optuna.samplers.BaseSampler:
        """A new one for each trial, so that what it asks for depends on the trials before and not on interruptions."""
        settings = dict(self.spec.sampler)
        if settings["_target_"] == GRID:
            settings = {"_target_": "optuna.samplers.RandomSampler", "seed": settings.get("seed")}
        if settings.get("seed") is not None:
            settings["seed"] = (settings["seed"] + point) % 2**32
        whitelist = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
        sampler: optuna.samplers.BaseSampler = instantiate(settings, _execution_whitelist_=whitelist)
        return sampler

    def tell(self, trial: Trial, point: Point) -> None:
        """What came of a trial."""
        for key, value in (("run_id", point.run_id), ("name", point.name), ("reason", point.reason)):
            trial.set_user_attr(key, value)
        values = [point.value(objective) for objective in self.spec.objectives]
        if point.status == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif point.status == "finished" and None not in values:
            if len(values) == 1 and not self._study.trials[trial.number].intermediate_values:  # it was run before
                for epoch, reached in enumerate(point.history.get(self.spec.objectives[0], ()), start=1):
                    trial.report(reached, epoch)
            self._study.tell(trial, values)  # type: ignore[arg-type]
        else:
            self._study.tell(trial, state=TrialState.FAIL)


def _waiting(point: int, params: Mapping[str, Any], space: Space) -> FrozenTrial:
    return create_trial(
        state=TrialState.WAITING, params=dict(params), distributions=dict(space), user_attrs={"point": point}
    )


def _connect(address: str) -> RDBStorage:
    local = address.startswith("sqlite:///")
    if local:
        address = store.resolve(address)
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"connect_args": {"timeout": 120}} if local else {"pool_pre_ping": True}
    try:
        return RDBStorage(address, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, a driver's that is not installed
        reason = str(error).splitlines()[0]
        raise UserError(f"hydra.sweeper.storage={address}: cannot be used ({reason})") from None


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """The name of a worker, who is seen to be alive as long as its process is."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f"{uuid.uuid4().hex[:12]}.worker"
    with filelock.FileLock(mark):
        try:
            yield f"{socket.gethostname()}/{mark.name}"
        finally:
            mark.unlink(missing_ok=True)


def _alive(mark: Path) -> bool:
    if not mark.exists():
        return False
    try:
        with filelock.FileLock(mark, timeout=0):
            mark.unlink(missing_ok=True)
            return False
    except filelock.Timeout:
        return True


def _any_alive(folder: Path) -> bool:
    return any(_alive(mark) for mark in folder.glob("*.worker"))
