"""Where a run comes from: command, user, and the commit of the working directory."""

from __future__ import annotations

import contextlib
import functools
import getpass
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from experiments.config.command_line import mask_passwords


def provenance_tags(overrides: Sequence[str]) -> dict[str, str]:
    """The tags that say so, by the names that MLflow has for them."""
    tags = {
        "overrides": mask_passwords(shlex.join(overrides))[:5000],  # MLflow's limit a tag
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


@dataclass(frozen=True)
class ParentRun:
    """The multirun that a run belongs to: its run in MLflow, if there is one, and what it calls this run."""

    run_id: str | None
    point_name: str


def environment(device: torch.device, digest: str) -> dict[str, str]:
    """Where and on what a run was made, in words."""
    packages = ("experiments", "torch", "mlflow", "numpy", "hydra-core", "pillow")
    return {
        "data (SHA-256)": digest,
        "device": f"cpu, {torch.get_num_threads()} threads" if device.type == "cpu" else device.type,
        "machine": f"{platform.system()} {platform.machine()}, {processor()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def processor() -> str:
    """The name of the processor, such as "AMD EPYC 9355"."""
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    except (OSError, TypeError):  # not Linux, or a processor that does not say
        return platform.processor() or "unknown processor"
