"""The identity of a run.

A run is identified by what determines its result: the configuration, the data, and the source code that computes it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from experiments.config import Config
from experiments.config.keys import decisive_settings, late_keys
from experiments.config.targets import source_files

DEVICES = ("cuda", "mps", "cpu")
PACKAGE = Path(__file__).parents[1]
# A change in these may change the numbers: how images are gathered and balanced, what a setting computes, what is kept.
DECISIVE = (
    *(
        "models",
        "training",
        "data/batches.py",
        "data/augmentation",
        "data/images.py",
        "data/pixels.py",
        "data/crops.py",
        "data/rows.py",
    ),
    *(
        "data/copies.py",
        "data/on_the_fly.py",
        "data/photographs.py",
        "data/jpeg.py",
        "data/squares.py",
        "data/decoding.py",
    ),
    *("config/views.py", "config/networks.py", "config/optimizers.py", "runs/checkpoint.py", "experiment.py"),
)


def fingerprint(config: Config, device: str, data_digest: str, weights_digest: str | None = None) -> str:
    """64 hexadecimal digits, equal for two runs if, and only if, they must compute the same numbers.

    The role of a key decides whether it is included. The digests of the images and of the initial weights replace the keys
    that choose them.
    """
    return _digest_of(decisive_settings(config) | {"device": device}, config, data_digest, weights_digest)


def folder_of(config: Config, identity: str) -> Path:
    """Where the process that works on the run with this fingerprint leaves its files."""
    return Path(config.outputs) / "runs" / (identity[:16] + ("" if config.tracking.uri else "-untracked"))


def identify(config: Config, device: str, data_digest: str, weights_digest: str | None) -> str:
    """The fingerprint of a run; with device=auto, where only another device has worked on the run, that for this device.

    So the same command continues on a machine without a GPU what a GPU has begun, and the reverse.
    """
    own = fingerprint(config, device, data_digest, weights_digest)
    if config.device != "auto" or folder_of(config, own).exists():
        return own
    others = (fingerprint(config, other, data_digest, weights_digest) for other in DEVICES if other != device)
    return next((other for other in others if folder_of(config, other).exists()), own)


def trunk(config: Config, device: str, data_digest: str, weights_digest: str | None, **others: object) -> str:
    """The same without the settings that act later than the first step: runs with an equal trunk may share epochs.

    Args:
        others: what else must be equal for the same bits.
    """
    settings = {key: value for key, value in decisive_settings(config).items() if key not in late_keys()}
    return _digest_of(settings | others | {"device": device}, config, data_digest, weights_digest)


def _digest_of(settings: Mapping[str, object], config: Config, data_digest: str, weights_digest: str | None) -> str:
    content = {"settings": settings, "data": data_digest, "sources": sources(config.model.target)}
    content |= {"weights": weights_digest} if weights_digest else {}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sources(target: str) -> list[Collection[str]]:
    """What changes with the code that a network and its training are made of."""
    return [sorted(package_sources(PACKAGE).values()), own_sources(target)]


def own_sources(target: str) -> dict[str, str]:
    """SHA-256 of every file of the user's project that a custom class is made of, by its name; none for our classes."""
    return {name: _digest(path) for name, path in own_files(target).items()}


def own_files(target: str) -> dict[str, Path]:
    """These files, by the name that each has in a folder of modules."""
    return {
        f"{name.replace('.', '/')}{'/__init__' if path.stem == '__init__' else ''}{path.suffix}": path
        for name, path in source_files(target).items()
    }


@functools.cache  # 80 ms; a process runs the code that it has imported, whatever happens to the files afterwards
def package_sources(package: Path) -> dict[str, str]:
    """SHA-256 of every decisive file of the package, by its name."""
    files = {
        path
        for name in DECISIVE
        for path in [package / name, *(package / name).rglob("*")]
        if path.suffix in (".py", ".c")
    }
    return {path.relative_to(package).as_posix(): _digest(path) for path in sorted(files)}


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
