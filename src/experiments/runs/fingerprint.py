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
# A change in these files may change the numbers.
DECISIVE = ("models", "training", "data/batches.py", "data/augmentation", "config/views.py")


def fingerprint(config: Config, device: str, data_digest: str) -> str:
    """64 hexadecimal digits that two runs share if, and only if, they must give the same numbers.

    The role of a key decides whether it is included. The keys that choose the images are replaced by their digest.
    """
    settings = decisive_settings(config) | {"device": device}
    content = {"settings": settings, "data": data_digest, "sources": _sources(config.model.target)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sources(target: str) -> dict[str, str]:
    """SHA-256 of each decisive source file and of the file of a custom network; comments and layout do not change it."""
    files = {path for name in DECISIVE for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")] if path.is_file()}
    named = {path.relative_to(PACKAGE).as_posix(): path for path in files}
    custom = source_file(target)
    if custom is not None and custom not in files:
        named[target] = custom
    return {
        name: hashlib.sha256(ast.unparse(ast.parse(path.read_bytes())).encode()).hexdigest()
        for name, path in sorted(named.items())
    }
