"""What `python train.py -m` runs: Hydra's sweepers, made so that a multirun can be continued.

hydra/sweeper=basic     every combination of the values
hydra/sweeper=optuna    a search: Optuna asks for one trial after the other
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.config import UserError, loading
from experiments.config.command_line import Command, exit_codes


class MultirunSweeper(Sweeper):
    """What both have in common; `params` are overrides that a preset gives, {key: values}."""

    def __init__(self, params: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.params = params or {}  # the settings are read where the configuration is composed with all overrides

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.composed = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        hydra_config = self.composed.hydra
        typed = [*hydra_config.overrides.hydra, *hydra_config.overrides.task]
        with exit_codes(
            Command.from_hydra(hydra_config, [text for text in typed if text != "hydra.mode=MULTIRUN"], True)
        ):
            overrides = _given(self.params, arguments)
            if self.params:  # else train.py has checked them
                loading.check_overrides(overrides)
            self.run(overrides)

    @abstractmethod
    def run(self, overrides: list[str]) -> None:
        """Train all points of these overrides, ranges among them."""


class GridSweeper(MultirunSweeper):
    """Every combination of the values."""

    def run(self, overrides: list[str]) -> None:
        from experiments.sweep.multirun import Multirun, configured  # imports torch, which takes seconds

        choices = _choices(overrides)
        jobs = [list(job) for job in itertools.product(*choices.values())]
        varied = [key for key, values in choices.items() if len(values) > 1]
        config = configured(jobs[0], varied, self.composed)
        if names := _different_experiments(jobs, varied):
            jobs = [[*job, f"tracking.experiment={names}"] for job in jobs]
            config = configured(jobs[0], varied, self.composed)
        multirun = Multirun(config, self.composed, self.context, varied)
        with multirun.held(), multirun.opened():
            with multirun.watched(len(jobs)):
                outcomes = multirun.run(jobs)
            multirun.conclude(outcomes)


class SearchSweeper(MultirunSweeper):
    """Optuna asks, any launcher trains; several workers, and several processes, share one study.

    conf/hydra/sweeper/optuna.yaml has its settings.
    """

    def run(self, overrides: list[str]) -> None:
        from experiments.sweep import search, space
        from experiments.sweep.multirun import Multirun, configured

        distributions, fixed = space.space(overrides)
        config = configured([*fixed, *space.first(distributions)], list(distributions), self.composed)
        composed = self.context.config_loader.load_sweep_config(self.composed, fixed)
        multirun = Multirun(config, self.composed, self.context, list(distributions))
        settings: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
        search.run(multirun, settings, distributions, fixed, _workers(settings, composed))


def register_sweepers() -> None:
    """Let Hydra know the sweepers that conf/hydra/sweeper names."""
    for sweeper in (GridSweeper, SearchSweeper):
        Plugins.instance().register(sweeper)


def _given(params: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The overrides of a preset, and those of the command line, which come after and win."""
    typed = {text.partition("=")[0].lstrip("+~") for text in arguments}
    return [*(f"{key}={value}" for key, value in params.items() if key not in typed), *arguments]


def _choices(overrides: Sequence[str]) -> dict[str, list[str]]:
    """{key: the overrides to choose from}.

    Raises:
        UserError: for a continuous range, of which a grid cannot try every value.
    """
    choices = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        assert isinstance(override, Override)
        key = override.get_key_element()
        if key in choices:
            raise UserError(f"{key}: is given twice: {override.input_line}")
        if not override.is_sweep_override():
            choices[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{override.input_line}: has no end of values; search it: hydra/sweeper=optuna")
    return choices


def _different_experiments(jobs: list[list[str]], varied: Sequence[str]) -> str | None:
    """A name for points that would lie in several of MLflow's experiments: it nests runs within one only."""
    if not {"data", "data.name", "experiment"} & set(varied):
        return None
    names = sorted({loading.compose_config(job).tracking.experiment for job in jobs})
    return None if len(names) == 1 else "-".join(names)


def _workers(settings: Mapping[str, Any], composed: DictConfig) -> int:
    """How many trials run at the same time."""
    jobs = settings["n_jobs"] or OmegaConf.select(composed, "hydra.launcher.n_jobs") or 1
    if isinstance(jobs, int) and jobs < 0:
        import joblib

        return joblib.effective_n_jobs(jobs)
    return jobs
