"""What a search is made of: its space, Optuna's sampler and pruner, its database."""

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
from experiments.runs import store
from experiments.sweep.space import Space, grid

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


def check(spec: Spec) -> None:
    """Make what `spec` names, without any trial.

    Raises:
        UserError: where Optuna cannot, or a grid has no end.
    """
    try:
        make_sampler(spec, 0), make_pruner(spec)
    except Exception as error:  # Hydra's, Optuna's, Python's own: whatever a wrong argument leads to
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"hydra/sweeper: Optuna cannot make this sampler or pruner ({reason})") from None
    if spec.sampler["_target_"] == GRID:
        grid(spec.space)


def make_pruner(spec: Spec) -> optuna.pruners.BasePruner:
    pruner: optuna.pruners.BasePruner = instantiate(dict(spec.pruner), _execution_whitelist_=("optuna.pruners.*",))
    return pruner


def make_sampler(spec: Spec, point: int) -> optuna.samplers.BaseSampler:
    """A new one for each trial, so that its random numbers do not depend on how many were drawn before."""
    settings = dict(spec.sampler)
    if settings["_target_"] == GRID:
        settings = {"_target_": "optuna.samplers.RandomSampler", "seed": settings.get("seed")}
    if settings.get("seed") is not None:
        settings["seed"] = (settings["seed"] + point) % 2**32
    whitelist = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
    sampler: optuna.samplers.BaseSampler = instantiate(settings, _execution_whitelist_=whitelist)
    return sampler


def connect(address: str) -> RDBStorage:
    local = address.startswith("sqlite:///")
    if local:
        address = store.resolve(address)
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"connect_args": {"timeout": 120}} if local else {"pool_pre_ping": True}
    try:
        return RDBStorage(address, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, a driver's that is not installed
        reason = str(error).splitlines()[0]
        raise UserError(
            f"hydra.sweeper.storage={mask_passwords(address)}: cannot be used ({mask_passwords(reason)})"
        ) from None
