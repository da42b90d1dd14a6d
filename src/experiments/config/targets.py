"""The class that a `_target_` names: one of this package, or a custom one in a Python file of the working directory."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
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
    except SyntaxError as error:
        raise UserError(f"{group}._target_={target}: {_described(error)}") from None
    except Exception as error:  # whatever the code of a module raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{place.filename}, line {place.lineno}: {type(error).__name__}: {error}"
        raise UserError(f"{group}._target_={target}: {reason}") from None
    if not (isinstance(located, type) and issubclass(located, base)):
        raise UserError(f"{group}._target_={target}: must be a class derived from {base_name}")
    return located


def source_files(target: str) -> dict[str, Path]:
    """The file of the custom class `target`, and those of all modules that it imports, and so on, by dotted name.

    They are found without importing them. This package, Python's own modules and installed packages are left out; only the
    file of `target` itself counts wherever it is.
    """
    _search_working_directory()
    importlib.invalidate_caches()
    found: dict[str, Path] = {}
    seen, waiting = {"experiments"}, [target.rpartition(".")[0]]
    while waiting:
        name = waiting.pop()
        if not name or name in seen or name.startswith("experiments."):
            continue
        seen.add(name)
        waiting.append(name.rpartition(".")[0])  # the packages around a module are imported before it
        spec = _spec(name)
        if spec is None or not spec.has_location or not spec.origin or (found and is_installed(Path(spec.origin))):
            continue
        found[name] = Path(spec.origin)
        waiting += _imports(found[name], name if spec.submodule_search_locations else name.rpartition(".")[0])
    return found


def syntax_errors(target: str) -> Iterator[str]:
    """A description, with file and line, of each file of the custom class `target` that Python cannot read."""
    for path in source_files(target).values():
        try:
            if path.suffix == ".py":
                ast.parse(path.read_bytes(), path)
        except SyntaxError as error:
            yield _described(error)


def _described(error: SyntaxError) -> str:
    return f"{error.filename}, line {error.lineno}: {error.msg}"


def _spec(name: str) -> ModuleSpec | None:
    """Where the module is; unlike `importlib.util.find_spec`, this does not import the packages around it."""
    first, *others = name.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # of `__main__`
        return None
    for other in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{other}", spec.submodule_search_locations)
    return spec


def is_ours(target: str) -> bool:
    """Whether the class is of this package."""
    return target.startswith("experiments.")


def is_installed(path: Path) -> bool:
    """Whether a file is one of Python's own, or of an installed package."""
    pythons = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(map(path.is_relative_to, pythons))


def _imports(path: Path, package: str) -> Iterator[str]:
    """The dotted names that a file imports, also inside functions; `package` is where its relative imports start."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # compiled, or being edited
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # above the outermost package
                continue
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _search_working_directory() -> None:
    """Custom classes are in the project's folder, which only `python train.py` has on its path automatically."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
