"""The parts of a search: its space, Optuna's sampler and pruner, the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.utils import instantiate
from optuna.storages import RDBStorage

from experiments.config import UserError
from experiments.config.command_line import mask_passwords
from experiments.runs.databases import database_address, database_file
from experiments.sweep.space import Space, combinations

GRID = "optuna.samplers.GridSampler"


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


def make_pruner(spec: Spec) -> optuna.pruners.BasePruner:
    pruner: optuna.pruners.BasePruner = instantiate(dict(spec.pruner), _execution_whitelist_=("optuna.pruners.*",))
    return pruner


def make_sampler(spec: Spec, point: int) -> optuna.samplers.BaseSampler:
    """A new sampler for each point, so that its random numbers do not depend on how many were drawn before."""
    settings = dict(spec.sampler)
    if settings["_target_"] == GRID:
        settings = {"_target_": "optuna.samplers.RandomSampler", "seed": settings.get("seed")}
    if settings.get("seed") is not None:
        settings["seed"] = (settings["seed"] + point) % 2**32
    whitelist = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
    sampler: optuna.samplers.BaseSampler = instantiate(settings, _execution_whitelist_=whitelist)
    return sampler


def open_storage(address: str) -> RDBStorage:
    """Connect to the database; a SQLite file is created if there is none.

    Raises:
        UserError: the database cannot be used.
    """
    file = database_file(address)
    options: dict[str, Any] = {"connect_args": {"timeout": 120}} if file else {"pool_pre_ping": True}
    try:
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        return RDBStorage(database_address(file) if file else address, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, or that of a driver that is not installed
        reason = str(error).splitlines()[0]
        raise UserError(
            f"hydra.sweeper.storage={mask_passwords(address)}: cannot be used ({mask_passwords(reason)})"
        ) from None
