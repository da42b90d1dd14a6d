"""The class that a `_target_` names: one of this package, or a custom one in a Python file of the working directory."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from experiments.config.errors import UserError


def locate(group: str, target: str, base: type, base_name: str) -> type:
    """The class at the dotted path `target`, which `group` configures; it must be derived from `base`.

    Raises:
        UserError: if there is no such class, or it is not derived from `base`.
    """
    _search_working_directory()
    module, _, name = target.rpartition(".")
    try:
        located = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{group}._target_={target}: there is no such class ({error})") from None
    if not (isinstance(located, type) and issubclass(located, base)):
        raise UserError(f"{group}._target_={target}: must be a class derived from {base_name}")
    return located


def source_file(target: str) -> Path | None:
    """The file that contains the class `target`, found without importing it; None if there is none."""
    _search_working_directory()
    try:
        found = importlib.util.find_spec(target.rpartition(".")[0])
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin else None


def _search_working_directory() -> None:
    """Custom classes are in the project's folder, which only `python train.py` has on its path automatically."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
