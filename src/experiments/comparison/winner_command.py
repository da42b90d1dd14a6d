"""The command that trains a configuration with all its seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from experiments.comparison.configurations import Configuration, known_settings
from experiments.comparison.points import Point
from experiments.comparison.values import ordered
from experiments.config import UserError
from experiments.config.arguments import search_path
from experiments.config.command_line import Command
from experiments.config.data import FOLD_KEYS
from experiments.config.foreign import MASK, mask_passwords
from experiments.config.keys import flatten, key_of, role_of, standalone_overrides
from experiments.config.loading import compose_config

WITHOUT_FOLDS = "It trains without folds: data.validation_size and data.split choose the validation images."


def training_command(made_by: Command, configuration: Configuration) -> str:
    """The command, a multirun if there are several seeds; empty if no command does today.

    Folds compare configurations: each leaves out other training images. So the command has none.

    Args:
        made_by: the command that made the points; empty if they come from several.
    """
    runs = configuration.finished
    overrides = standalone_overrides(runs[0].overrides)
    if has_folds(configuration):
        typed = {key_of(text) for text in overrides}
        overrides = [text for text in overrides if key_of(text) not in FOLD_KEYS]
        if "data.folds" not in typed:  # a file in conf/ sets it
            overrides += [f"{key}=null" for key in FOLD_KEYS]
    seeds = [seed for seed in ordered([known_settings(point).get("seed") for point in configuration.points]) if seed]
    if len(seeds) < 2:
        command = made_by.single(overrides)
        return str(command) if _trains(command, runs[0].settings) else ""
    overrides = [_following(text, runs) for text in overrides]
    for point in (runs[0], runs[-1]):
        if not _trains(made_by.single(_with_seeds(overrides, [point.settings["seed"]])), point.settings):
            return ""
    grid = ["hydra/sweeper=basic"] if any(key_of(text) == "search" for text in overrides) else []
    return str(dataclasses.replace(made_by, overrides=(*grid, *_with_seeds(overrides, seeds)), multirun=True))


def has_folds(configuration: Configuration) -> bool:
    return any(point.settings.get("data.fold", "None") != "None" for point in configuration.finished)


def _following(override: str, runs: Sequence[Point]) -> str:
    """Another seed that has the value of `seed` in every run: each override has the number in place of `${seed}`."""
    key = key_of(override)
    same = key.endswith(".seed") and all(run.settings.get(key) == run.settings.get("seed") for run in runs)
    return f"{key}=${{seed}}" if same else override


def _with_seeds(overrides: Sequence[str], seeds: Sequence[str]) -> list[str]:
    """The overrides with these seeds, where the seed was, or at the end."""
    chosen = f"seed={','.join(seeds)}"
    replaced = [chosen if key_of(text) == "seed" else text for text in overrides]
    return replaced if chosen in replaced else [*replaced, chosen]


def _trains(command: Command, settings: Mapping[str, str]) -> bool:
    """Whether a command has these settings today, but for folds: conf/ may have changed since, or MLflow has cut the overrides."""
    hidden = [
        text for text in command.overrides if MASK in text or "${oc." in text
    ]  # passwords, values of the environment
    overrides = [text for text in command.overrides if text not in hidden]
    try:
        config = compose_config([*overrides, *search_path(command.config_dir)])
    except UserError:
        return False
    today = {key: mask_passwords(str(value)) for key, value in flatten(config.to_dict())}
    known = {
        key: mask_passwords(value)
        for key, value in settings.items()
        if role_of(key).identifies_multirun and key not in FOLD_KEYS and key not in map(key_of, hidden)
    }
    return all(today.get(key, value) == value for key, value in known.items() if MASK not in value)
