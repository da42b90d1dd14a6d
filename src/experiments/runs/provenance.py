"""Where a run comes from: its user, the commit of the working directory, its environment, and its multirun."""

from __future__ import annotations

import contextlib
import functools
import getpass
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from experiments.config import Config, UserError
from experiments.config.wording import counted
from experiments.training.devices import choose_device, device_type

PACKAGES = ("experiments", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pillow", "mlflow", "hydra-core")
CHANGED = "its settings, its images or the code have changed since it was trained"


def provenance_tags() -> dict[str, str]:
    """Program, user and commit, as MLflow's own tags."""
    tags = {"mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(KeyError, OSError):  # in a container, the user may have a number but no name
        tags["mlflow.user"] = getpass.getuser()
    return {**tags, **commit()}


@functools.cache
def commit() -> Mapping[str, str]:
    """The commit, and whether there were uncommitted changes; read once per process, as the code is."""
    git = ("git", "--no-optional-locks")
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return {}
    return {"mlflow.source.git.commit": commit.stdout.strip(), "git_dirty": str(bool(status.stdout)).lower()}


@dataclass(frozen=True)
class ParentRun:
    """The multirun that a run belongs to: its id in MLflow, if it has one, and its name for this run.

    Attributes:
        tests: id of the finished run to evaluate on the test set; no other run may be found or started.
        folder: of the multirun; None if the run shares nothing with its other points.
        forks: its points may share their first epochs.
    """

    run_id: str | None
    point_name: str
    tests: str | None = None
    folder: Path | None = None
    forks: bool = False


def check_devices(configs: Iterable[Config]) -> None:
    """Check that this machine has the devices of these configurations, which compute in their precision.

    Raises:
        UserError: listing those that it lacks.
    """
    problems: dict[str, None] = {}  # an ordered set
    for config in configs:
        try:
            device_type(config)
        except UserError as error:
            problems[str(error)] = None
    if problems:
        raise UserError("\n".join(problems))


def automatic_threads(config: Config) -> int:
    """The number of CPU threads that a run of this process would use."""
    choose_device(config)
    return torch.get_num_threads()


def machine(device: torch.device) -> dict[str, str]:
    """What the last bits of a result depend on, besides the settings and the number of threads."""
    found = {"device": device.type, "torch": str(torch.__version__)}
    if device.type == "cuda":
        gpu, cudnn = torch.cuda.get_device_name(device), str(torch.backends.cudnn.version())
        return found | {"GPU": gpu, "CUDA": str(torch.version.cuda or torch.version.hip), "cuDNN": cudnn}
    return found | {"processor": processor(), "instructions": torch.backends.cpu.get_cpu_capability()}


def change_of_machine(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between the machines that trained the first epochs and train the next; empty if nothing does."""
    then, here = (
        ", ".join(f"{name} {value}" for name, value in one.items() if other.get(name) != value)
        for one, other in ((before, now), (now, before))
    )
    return f"trained so far with {then}, from here on with {here}: the last bits may differ" if then or here else ""


def machine_tags(config: Config) -> dict[str, str]:
    """The machine on which a run is started, as a tag of the run."""
    return {"machine": described(machine(torch.device(device_type(config))))}


def described(found: Mapping[str, str]) -> str:
    """A machine as text."""
    return ", ".join(f"{name} {value}" for name, value in found.items())


def read_machine(tag: str) -> dict[str, str]:
    """What `described` has written."""
    names = "device|torch|processor|instructions|GPU|CUDA|cuDNN"
    parts = re.split(rf", (?=(?:{names}) )", tag) if tag else []
    return dict(part.partition(" ")[::2] for part in parts)


def packages() -> dict[str, str]:
    """The versions of Python and of the installed packages that compute, read pictures or store results."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # an extra
            found[name] = version(name)
    return found


def environment(device: torch.device, digest: str, weights_digest: str | None = None) -> dict[str, str]:
    """Data, initial weights, device, machine and package versions of a run, as text for its report."""
    return {
        "data (SHA-256)": digest,
        **({"initial weights (SHA-256)": weights_digest} if weights_digest else {}),
        "device": _described(device),
        "machine": f"{platform.system()} {platform.machine()}, {processor()}",
        **packages(),
    }


def _described(device: torch.device) -> str:
    if device.type == "cpu":
        return f"cpu, {counted(torch.get_num_threads(), 'thread')}"
    found = machine(device)
    return ", ".join([device.type, *(f"{name} {found[name]}" for name in ("GPU", "CUDA", "cuDNN") if name in found)])


@functools.cache
def processor() -> str:
    """The name of the processor, such as "AMD EPYC 9355"."""
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[1]  # type: ignore[index]
    except (OSError, TypeError):  # not Linux, or the processor has no model name there
        return platform.processor() or "unknown processor"
