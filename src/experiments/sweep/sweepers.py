"""The sweepers that `python train.py -m` runs; unlike Hydra's own, they can continue a multirun.

hydra/sweeper=basic     a grid: every combination of the values
hydra/sweeper=optuna    a search: Optuna suggests one trial after another
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from experiments.config import UserError, loading
from experiments.config.command_line import Command, exit_codes
from experiments.config.keys import key_of
from experiments.config.overrides import as_meant, check_count, choices, misread
from experiments.runs.identity import compose_values, identify
from experiments.sweep import grid
from experiments.sweep.costs import costs_of
from experiments.sweep.ending import finalize
from experiments.sweep.multirun import Multirun, compose_first
from experiments.sweep.workers import effective_jobs

LOCAL_LAUNCHERS = (".BasicLauncher", ".JoblibLauncher")
FEW = 20  # combinations that are checked of a space with many keys, which was made to fit
CHOOSE_DEVICE = ("device", "precision", "experiment")  # of a key with many values, only the first is looked at


class MultirunSweeper(Sweeper):
    """The common part of both sweepers; `params` are the overrides of a preset in conf/search/, {key: values}."""

    def __init__(self, params: Mapping[str, str] | None = None, **settings: Any) -> None:
        self.params = params or {}  # the other settings are read from the configuration composed with all overrides

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.composed = hydra_context, config

    def sweep(self, arguments: list[str]) -> None:
        hydra_config = self.composed.hydra
        typed = [*hydra_config.overrides.hydra, *hydra_config.overrides.task]
        with exit_codes(
            Command.from_hydra(hydra_config, [text for text in typed if text != "hydra.mode=MULTIRUN"], True)
        ):
            if not isinstance(self.params, Mapping):
                raise UserError(
                    f"hydra.sweeper.params={self.params}: must be a group of keys: {{model.filters: 'choice(16,32)'}}"
                )
            fitting = self.fitting()
            params = {**fitting, **self.params}
            overrides = _expand_globs(_add_params(params, arguments), self.context.config_loader)
            if overrides != arguments:  # train.py has checked the arguments
                loading.check_overrides(overrides, most=FEW if fitting else loading.MOST_CHECKED)
            self.run(overrides)

    def fitting(self) -> Mapping[str, str]:
        """The ranges of `spaces` that fit the configuration."""
        return {}

    @abstractmethod
    def run(self, overrides: list[str]) -> None:
        """Train all points of these overrides, some of which are ranges or lists of values."""


class GridSweeper(MultirunSweeper):
    """Every combination of the values."""

    def run(self, overrides: list[str]) -> None:
        values = _list_choices(overrides)
        jobs = [list(job) for job in itertools.product(*values.values())]
        varied = [key for key, options in values.items() if len(options) > 1]
        config = compose_first(jobs[0], varied, self.composed)
        if name := _joint_experiment(jobs, varied):
            values["tracking.experiment"] = [as_meant(f"tracking.experiment={name}")]
            jobs = [[*job, *values["tracking.experiment"]] for job in jobs]
            config = compose_first(jobs[0], varied, self.composed)
        _check_devices(self.composed, values)
        multirun = Multirun(config, self.composed, self.context, varied, identify(values))
        costs = costs_of(values)
        with multirun.locked(), multirun.parent_run():
            finalize(multirun, grid.train(multirun, jobs, costs))


class SearchSweeper(MultirunSweeper):
    """Optuna suggests trials, and any launcher trains them; several workers and several processes share one study.

    Its settings are in conf/hydra/sweeper/optuna.yaml.
    """

    def fitting(self) -> Mapping[str, str]:
        from experiments.sweep import space  # imports Optuna

        plain = OmegaConf.to_container(self.composed.hydra.sweeper.spaces, resolve=True)
        return space.fitting(plain, self.composed)

    def run(self, overrides: list[str]) -> None:
        from experiments.sweep import samplers, search, space  # import Optuna

        distributions, fixed = space.parse_space(overrides)
        config = compose_first([*fixed, *space.lowest(distributions)], list(distributions), self.composed)
        composed = self.context.config_loader.load_sweep_config(self.composed, fixed)
        settings: Any = OmegaConf.to_container(composed.hydra.sweeper, resolve=True)
        samplers.check_settings(config, settings)
        values, others = search.identifying(distributions, fixed, settings, config.sweep.objectives)
        _check_devices(composed, values)
        multirun = Multirun(config, self.composed, self.context, list(distributions), identify(values, others))
        search.run(multirun, settings, distributions, fixed, _count_workers(settings, composed))


def register_sweepers() -> None:
    """Register the sweepers that conf/hydra/sweeper/ names with Hydra."""
    for sweeper in (GridSweeper, SearchSweeper):
        Plugins.instance().register(sweeper)


def _check_devices(composed: DictConfig, values: Mapping[str, Sequence[str]]) -> None:
    """Refuse devices that this machine lacks, unless the launcher trains on other machines."""
    if not composed.hydra.launcher._target_.endswith(LOCAL_LAUNCHERS):
        return
    choosing = {key: options if key in CHOOSE_DEVICE else options[:1] for key, options in values.items()}
    configs = compose_values(choosing)
    if any(config.device not in ("auto", "cpu") or config.precision != "fp32" for config in configs):
        from experiments.runs.provenance import check_devices  # imports torch

        check_devices(configs)


def _add_params(params: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The overrides of a preset, then those of the command line, which replace them."""
    typed = {text.partition("=")[0].lstrip("+~") for text in arguments}
    return [*(as_meant(f"{key}={value}") for key, value in params.items() if key not in typed), *arguments]


def _expand_globs(overrides: Sequence[str], loader: ConfigLoader) -> list[str]:
    """Replace `group=glob(pattern)` by the files of the group that match.

    Raises:
        UserError: no file matches, or an override of a preset cannot be read.
    """
    if wrong := [reason for text in overrides if (reason := misread(text))]:
        raise UserError("\n".join(wrong))
    expanded = []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(overrides)):
        text = str(override.input_line)
        if isinstance(override.value(), Glob):
            if not (names := [name for name in override.sweep_string_iterator() if not name.startswith("_")]):
                raise UserError(f"{text}: matches no file of conf/{override.key_or_group}/")
            text = f"{override.get_key_element()}={','.join(names)}"
        expanded.append(text)
    return expanded


def _list_choices(overrides: Sequence[str]) -> dict[str, list[str]]:
    """{key: the overrides to choose from}.

    Raises:
        UserError: a range is continuous, so a grid cannot try all its values; a key is given twice; there are too many runs.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    check_count(parsed)
    values = {}
    for override in parsed:
        key = key_of(str(override.input_line))
        if key in values:
            raise UserError(f"{key}: is given twice: {override.input_line}")
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = choices(override)
        else:
            raise UserError(f"{override.input_line}: is continuous; use hydra/sweeper=optuna")
    return values


def _joint_experiment(jobs: list[list[str]], varied: Sequence[str]) -> str | None:
    """A name for the MLflow experiment of runs that belong to several: MLflow nests runs within one experiment only."""
    if not {"data", "data.name", "data.root", "experiment"} & set(varied):
        return None
    names = sorted({loading.compose_config(job).experiment for job in jobs})
    return None if len(names) == 1 else "-".join(names)


def _count_workers(settings: Mapping[str, Any], composed: DictConfig) -> int:
    """The number of trials that run at the same time."""
    return effective_jobs(settings["n_jobs"] or OmegaConf.select(composed, "hydra.launcher.n_jobs") or 1)
