"""Where a run comes from: command, user, and the commit of the working directory."""

from __future__ import annotations

import contextlib
import functools
import getpass
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

MASK = ":***@"


def masked(text: str) -> str:
    """Addresses without the passwords in them: what is kept of a run is read by many."""
    return re.sub(r"(://[^:/@\s]*):[^@/\s]+@", rf"\1{MASK}", text)


def origin(overrides: Sequence[str]) -> dict[str, str]:
    """The tags that say so, by the names that MLflow has for them."""
    tags = {
        "overrides": masked(shlex.join(overrides))[:5000],  # MLflow's limit a tag
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
    }
    with contextlib.suppress(KeyError, OSError):  # a container's user may have a number but no name
        tags["mlflow.user"] = getpass.getuser()
    return {**tags, **_commit()}


@functools.cache
def _commit() -> Mapping[str, str]:
    """The commit, and whether there were changes beside it; once a process, because the code was read once."""
    git = ("git", "--no-optional-locks")
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return {}
    return {"mlflow.source.git.commit": commit.stdout.strip(), "git_dirty": str(bool(status.stdout)).lower()}
