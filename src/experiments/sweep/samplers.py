"""The parts of a search: its space, Optuna's sampler and pruner, the database."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import StudyDirection

from experiments.config import Config, UserError
from experiments.config.cross_checks import show_value
from experiments.config.foreign import mask_passwords
from experiments.config.metrics import higher_is_better
from experiments.config.overrides import MOST_RUNS
from experiments.config.start_checks import SQLITE, expanded, unusable_database
from experiments.runs.databases import database_address, database_file
from experiments.sweep.space import Space, combinations

GRID, EVEN = "optuna.samplers.GridSampler", "optuna.samplers.QMCSampler"
PARTS = ("optuna.samplers.*", "optuna.pruners.*", "hydra_plugins.hydra_optuna_sweeper.*", "experiments.sweep.rungs.*")


@dataclass(frozen=True)
class Spec:
    """Everything that a worker needs to take part in a search; sent to the process of the worker.

    Attributes:
        name: of the study in the database.
        storage: address of the database.
        sampler, pruner: Optuna's class as `_target_`, and its arguments.
        folder: holds the lock files of the workers on the same machine.
    """

    name: str
    storage: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    space: Space
    n_trials: int
    objectives: tuple[str, ...]
    folder: Path

    @property
    def directions(self) -> list[StudyDirection]:
        up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
        return [up if higher_is_better(objective) else down for objective in self.objectives]

    @property
    def total(self) -> int:
        """The number of points: `n_trials`, or fewer in a grid."""
        return min(self.n_trials, len(combinations(self.space))) if self.sampler["_target_"] == GRID else self.n_trials


def check_settings(config: Config, settings: Mapping[str, Any]) -> None:
    """Check the settings of the sweeper.

    Raises:
        UserError: they contradict each other or the configuration.
    """
    if config.tracking.uri is None:
        raise UserError("tracking=none: a search stores its points in MLflow, so it needs tracking=mlflow")
    for part in ("sampler", "pruner"):
        if not isinstance(settings[part], Mapping) or not isinstance(settings[part].get("_target_"), str):
            raise UserError(
                f"hydra.sweeper.{part}={show_value(settings[part])}: must be chosen by hydra/sweeper/{part}=..."
            )
    if len(config.sweep.objectives) > 1 and "NopPruner" not in settings["pruner"]["_target_"]:
        raise UserError("hydra/sweeper/pruner: with several objectives no trial can be pruned; use pruner=none")
    if settings["n_trials"] is None and config.sweep.budget is None:
        raise UserError(
            "hydra.sweeper.n_trials=null: needs a budget, such as sweep.budget=15min, or a number of trials"
        )
    for key, kinds in dict.fromkeys(("n_trials", "n_jobs"), (int, type(None))).items():
        value = settings[key]
        if type(value) not in kinds or (value is not None and not 1 <= value <= MOST_RUNS):
            raise UserError(
                f"hydra.sweeper.{key}={show_value(value)}: must be a whole number of at least 1 and at most {MOST_RUNS:,}"
            )
    address = settings["storage"]
    if not isinstance(address, str) or "://" not in address:
        raise UserError(
            f"hydra.sweeper.storage={show_value(address)}: must be sqlite:///FILE.db, or the address of a database"
        )
    if address.startswith(SQLITE) and (reason := unusable_database(expanded(address.removeprefix(SQLITE)))):
        raise UserError(f"hydra.sweeper.storage={address}: {reason}")


def check_spec(spec: Spec) -> None:
    """Create the sampler and the pruner once, before any trial.

    Raises:
        UserError: Optuna cannot create them, or a grid contains a continuous range.
    """
    try:
        make_sampler(spec, 0), make_pruner(spec)
    except Exception as error:  # Hydra's, Optuna's, Python's own: whatever a wrong argument leads to
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"hydra/sweeper: Optuna cannot create this sampler or pruner ({reason})") from None
    if spec.sampler["_target_"] == GRID:
        combinations(spec.space)


def make_pruner(spec: Spec) -> Any:
    """Optuna's pruner, or the rungs."""
    return instantiate(dict(spec.pruner), _execution_whitelist_=PARTS)


def make_sampler(spec: Spec, point: int) -> optuna.samplers.BaseSampler:
    """A new sampler for each point, so that its random numbers do not depend on how many were drawn before."""
    settings = dict(spec.sampler)
    if settings["_target_"] == GRID:
        settings = {"_target_": "optuna.samplers.RandomSampler", "seed": settings.get("seed")}
    if settings.get("seed") is not None:
        settings["seed"] = (settings["seed"] + point) % 2**32
    sampler: optuna.samplers.BaseSampler = instantiate(settings, _execution_whitelist_=PARTS)
    return sampler


def planned(spec: Spec) -> Callable[[int], Mapping[str, Any]]:
    """The parameters of a point if they do not depend on results (a grid, a sequence that covers the space), else empty."""
    if spec.sampler["_target_"] == GRID:
        points = combinations(spec.space)
        random.Random(spec.sampler.get("seed")).shuffle(points)
        return points.__getitem__
    if spec.sampler["_target_"] != EVEN:
        return lambda point: {}
    sequence, drawn = _sequence(spec), list[Mapping[str, Any]]()

    def at(point: int) -> Mapping[str, Any]:
        drawn.extend(itertools.islice(sequence, max(0, point + 1 - len(drawn))))
        return drawn[point]

    return at


def _sequence(spec: Spec) -> Iterator[Mapping[str, Any]]:
    study = optuna.create_study(sampler=make_sampler(spec, 0))
    while True:
        trial = study.ask(fixed_distributions=dict(spec.space))
        study.tell(trial, 0.0)
        yield {key: trial.params[key] for key in spec.space}


def open_storage(address: str) -> BaseStorage:
    """Connect to the database; a SQLite file is created if there is none.

    Raises:
        UserError: the database cannot be used.
    """
    file = database_file(address)
    options: dict[str, Any] = {"connect_args": {"timeout": 120}} if file else {"pool_pre_ping": True}
    try:
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        return get_storage(RDBStorage(database_address(file) if file else address, engine_kwargs=options))
    except Exception as error:  # SQLAlchemy's, or that of a driver that is not installed
        reason = str(error).splitlines()[0]
        raise UserError(
            f"hydra.sweeper.storage={mask_passwords(address)}: cannot be used ({mask_passwords(reason)})"
        ) from None
