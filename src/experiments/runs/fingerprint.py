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
from experiments.config.targets import source_file

PACKAGE = Path(__file__).parents[1]
# A change in these may change the numbers.
DECISIVE = ("models", "training", "data/batches.py", "data/augmentation", "config/views.py")


def fingerprint(config: Config, device: str, data_digest: str) -> str:
    """64 hexadecimal digits, equal for two runs if, and only if, they must compute the same numbers.

    The role of a key decides whether it is included. The digest of the images replaces the keys that choose them.
    """
    settings = decisive_settings(config) | {"device": device}
    content = {"settings": settings, "data": data_digest, "sources": _sources(config.model.target)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sources(target: str) -> list[str]:
    """SHA-256 of every decisive source file and of the file of a custom network, wherever the files are."""
    files = {
        path
        for name in DECISIVE
        for path in [PACKAGE / name, *(PACKAGE / name).rglob("*")]
        if path.suffix in (".py", ".c")
    }
    custom = source_file(target)
    codes = {_code(path) for path in (files | {custom} if custom else files)}
    return sorted(hashlib.sha256(code.encode()).hexdigest() for code in codes)


def _code(path: Path) -> str:
    """What a file computes: Python without comments, layout and docstrings; C as it is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
