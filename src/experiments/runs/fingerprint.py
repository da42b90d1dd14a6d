"""The identity of a run.

A run is identified by what determines its result: the configuration, the data, and the source code that computes it.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

from experiments.config import Config
from experiments.config.keys import decisive_settings
from experiments.config.targets import source_files

PACKAGE = Path(__file__).parents[1]
# A change in these may change the numbers: how images are gathered and balanced, what a setting computes, what is kept.
DECISIVE = (
    *("models", "training", "data/batches.py", "data/augmentation", "data/images.py", "data/pixels.py"),
    *("config/views.py", "config/networks.py", "config/optimizers.py", "runs/checkpoint.py", "experiment.py"),
)


def fingerprint(config: Config, device: str, data_digest: str) -> str:
    """64 hexadecimal digits, equal for two runs if, and only if, they must compute the same numbers.

    The role of a key decides whether it is included. The digest of the images replaces the keys that choose them.
    """
    settings = decisive_settings(config) | {"device": device}
    sources = [_package_sources(), network_sources(config.model.target)]
    content = {"settings": settings, "data": data_digest, "sources": sources}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def network_sources(target: str) -> dict[str, str]:
    """SHA-256 of every file of the user's project that a custom network is made of, by its name; none for our networks."""
    return {
        f"{name.replace('.', '/')}{'/__init__' if path.stem == '__init__' else ''}{path.suffix}": _digest(path)
        for name, path in source_files(target).items()
    }


def _package_sources() -> list[str]:
    """SHA-256 of every decisive file of this package."""
    files = {
        path
        for name in DECISIVE
        for path in [PACKAGE / name, *(PACKAGE / name).rglob("*")]
        if path.suffix in (".py", ".c")
    }
    return sorted(map(_digest, files))


def _digest(path: Path) -> str:
    """SHA-256 of what a file computes: Python without comments, layout and docstrings; any other file as it is."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # C, compiled, or being edited
        return hashlib.sha256(path.read_bytes()).hexdigest()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
