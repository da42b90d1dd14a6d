"""Picture files that cannot be read: found by decoding them once, and remembered until a file changes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import track

from experiments.config import UserError
from experiments.data.decoding import decoder, open_picture
from experiments.data.prefetch import prefetch
from experiments.files.cache import Files, cached
from experiments.files.limits import usable_cpus


def find_broken(files: Files, cache: str) -> dict[int, str]:
    """The index of each picture that cannot be read, with what is wrong, beginning with its path.

    Args:
        cache: the folder that keeps the answer.
    """
    (found,) = cached(cache, ("broken", decoder(), files.digest), ("broken",), lambda: (_search(files.paths),))
    return {int(index): problem for index, problem in json.loads(found.array.tobytes()).items()}


def _search(paths: Sequence[str]) -> np.ndarray:
    """The answer as JSON, in bytes: the cache keeps arrays."""
    threads = usable_cpus()  # Pillow releases the interpreter lock
    problems = track(prefetch(_problem, paths, threads, 4 * threads), "checking pictures", total=len(paths))
    found = {index: problem for index, problem in enumerate(problems) if problem}
    return np.frombuffer(json.dumps(found).encode(), dtype=np.uint8)


def _problem(path: str) -> str:
    try:
        open_picture(Path(path))
    except UserError as error:
        return str(error)
    return ""


def relative_to(root: str, problem: str) -> str:
    """A problem with the path of its picture relative to `root`."""
    return problem.removeprefix(os.path.join(root, ""))  # noqa: PTH118 - a Path has no separator at its end
