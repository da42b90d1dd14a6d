"""conf/ and overrides -> one configuration, composed by Hydra -> `Config`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import validation
from experiments.config.data import DataSettings
from experiments.config.defaults import CONF
from experiments.config.errors import UserError
from experiments.config.published import with_wanted_images
from experiments.config.renamed import with_new_names
from experiments.config.schema import Config


def parse_composed(composed: DictConfig, problems: Sequence[str] = ()) -> Config:
    """A composed configuration as `Config`.

    Raises:
        UserError: listing `problems` and every mistake found here.
    """
    try:
        config = validation.parse(with_wanted_images(_resolved(composed)))
    except UserError as error:
        raise UserError("\n".join([*problems, str(error)])) from None
    if problems:
        raise UserError("\n".join(problems))
    return config


def with_defaults(saved: Mapping[str, Any]) -> Config:
    """The configuration of a finished run, with renamed keys; a key that it lacks has its current default.

    Nothing in it is resolved: `${oc.env:NAME}` stays as it is, because the run may be somebody else's.

    Raises:
        UserError: if it contains a key that no longer exists.
    """
    saved = with_new_names(saved)
    names = {group: saved[group]["name"] for group in ("data", "optimizer", "schedule") if group in saved}
    with hydra_api():
        known = {group: group_options(group) for group in names}
        base = compose("config", overrides=[f"{group}={name}" for group, name in names.items() if name in known[group]])
    OmegaConf.set_struct(base, False)
    if base.data["_target_"] != saved["data"].get("_target_", base.data["_target_"]):  # older runs have a name only
        shared = [field.name for field in dataclasses.fields(DataSettings)]
        base.data = OmegaConf.masked_copy(base.data, shared)  # a custom source has no defaults for its other keys
    if base.model["_target_"] != saved["model"]["_target_"]:
        base.model = {}  # another network has no defaults here; the saved values are used
    defaults = _resolved(OmegaConf.merge(base, _without_interpolations(saved)))  # type: ignore[arg-type]
    return validation.parse(with_wanted_images(_overlaid(defaults, saved)))


def _without_interpolations(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that OmegaConf would not resolve."""
    nested = {
        key: _without_interpolations(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    return {key: value for key, value in nested.items() if isinstance(value, Mapping) or "${" not in str(value)}


def _overlaid(base: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The base with these values in place of its own, at every depth."""
    known = base if isinstance(base, Mapping) else {}
    changed = {
        key: _overlaid(known.get(key), value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    return {**known, **changed}


def with_changes(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration of a finished run with other values; only these are resolved."""
    saved = config.to_dict()
    changed = OmegaConf.merge(_without_interpolations(saved), OmegaConf.from_dotlist(list(overrides)))
    return with_defaults(_overlaid(saved, _resolved(changed)))  # type: ignore[arg-type]


@contextlib.contextmanager
def hydra_api() -> Iterator[None]:
    """Hydra's compose API, set up for conf/ unless the caller (the command line, a notebook) has done so."""
    if GlobalHydra.instance().is_initialized():
        yield
    else:
        with initialize_config_dir(str(CONF)):
            yield


def group_options(group: str, search: Sequence[str] = ()) -> list[str]:
    """The choices of a group; empty for a key. Files that begin with _ are no choices: other files are based on them.

    Args:
        search: overrides of hydra.searchpath.
    """
    loader = GlobalHydra.instance().config_loader()
    options = loader.get_group_options(group, config_name="config" if search else None, overrides=list(search) or None)
    return [option for option in options if not option.startswith("_")]


def group_names() -> list[str]:
    """The names of the groups."""
    return GlobalHydra.instance().config_loader().get_group_options("", results_filter=None)


def compose_groups(overrides: Sequence[str]) -> DictConfig:
    return compose("config", overrides=list(overrides))


def _resolved(composed: DictConfig) -> dict[str, Any]:
    try:
        return OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise UserError(str(error)) from None
