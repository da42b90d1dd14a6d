"""Checks of Hydra's own settings (hydra.*), which Hydra itself would use without a look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from experiments.config.cross_checks import show_value
from experiments.config.keys import key_of
from experiments.config.overrides import as_meant, parse
from experiments.config.start_checks import unwritable

KINDS = {dict: "a group of keys", list: "a list"}


def hydra_mistakes(overrides: Sequence[str]) -> Iterator[str]:
    """Yield the typed settings of Hydra that are not of the kind of their defaults: a group, a list, or a value."""
    typed = [text for text in overrides if key_of(text).startswith("hydra.")]
    if any(key_of(text) == "hydra" for text in overrides):
        yield "hydra: is a group; set one of its keys, such as hydra.sweeper.n_trials"
    elif typed:
        search = [text for text in typed if key_of(text) == "hydra.searchpath"]
        others = [text for text in overrides if text not in typed]
        default, composed = _hydra([*others, *search]), _hydra(overrides)
        for text in typed:
            key = key_of(text)
            value = _select(composed, key)
            yield from _of_another_kind(key, _select(default, key), value)
            if (
                key in ("hydra.run.dir", "hydra.sweep.dir")
                and isinstance(value, str)
                and (reason := unwritable(Path(value)))
            ):
                yield f"{key}={value}: must be a folder; {reason}"


def _hydra(overrides: Sequence[str]) -> dict[str, Any]:
    composed = compose("config", overrides=[as_meant(text) for text in overrides], return_hydra_config=True)
    plain: dict[str, Any] = OmegaConf.to_container(composed.hydra, resolve=False)  # type: ignore[assignment]
    return {"hydra": plain}


def _select(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _of_another_kind(key: str, default: Any, value: Any) -> Iterator[str]:
    kind = next((kind for kind in KINDS if isinstance(default, kind)), None)
    if default is None or default == "???" or (default is False and isinstance(value, list)):  # hydra.verbose
        return
    if value is None or not isinstance(value, kind or (str, int, float)):
        yield f"{key}={show_value(value)}: must be {KINDS[kind] if kind else f'a value, like {show_value(default)}'}"
    elif isinstance(default, dict) and isinstance(value, dict):
        for name, inner in default.items():
            yield from _of_another_kind(f"{key}.{name}", inner, value.get(name))


def missing_folders(text: str) -> Iterator[str]:
    """Yield the mistakes in an override of hydra.searchpath; other overrides have none."""
    if key_of(text) != "hydra.searchpath":
        return
    override = parse(text)
    folders = override.value() if override else None
    if not isinstance(folders, list):
        yield f"{text}: must be a list of folders, for example hydra.searchpath=[file://own]"
        return
    for folder in map(str, folders):
        if not folder.startswith("pkg://") and not Path(folder.removeprefix("file://")).is_dir():
            yield f"hydra.searchpath: there is no folder {folder}"
