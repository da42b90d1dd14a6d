"""The memory and the processors that this process may use, and how busy the processors are."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
RUNS_PER_GPU = "RUNS_PER_GPU"  # in the environment of a run; hydra/launcher=joblib sets it


@functools.cache
def memory_limit() -> int:
    """Bytes that this process may use: those of the machine, or of its control group if that allows less."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows: no limit is known
        machine = sys.maxsize
    return min([machine, *memory_limits(GROUPS, MOUNT)])


def usable_cpus() -> int:
    """Processors that this process may use: those of the machine, or fewer by its affinity or the quota of its container.

    A fraction of a processor counts as one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in processor_quotas(GROUPS, MOUNT))])


def runs_per_gpu() -> int:
    """The number of runs that share the memory of a GPU with this one, which counts as well; 1 if nobody says."""
    value = os.environ.get(RUNS_PER_GPU, "")
    return max(1, int(value)) if value.isdecimal() else 1


def memory_limits(groups: Path, mount: Path) -> list[int]:
    """The limits in bytes of the control groups listed in the file `groups`, and of their parents."""
    files = _limit_files(groups, mount, "memory", ("memory.max", "memory.limit_in_bytes"))
    return [int(content) for file in files if (content := file.read_text().strip()).isdigit()]


def processor_quotas(groups: Path, mount: Path) -> list[float]:
    """The quotas in processors of the control groups listed in the file `groups`, and of their parents."""
    quotas = []
    for file in _limit_files(groups, mount, "cpu", ("cpu.max", "cpu.cfs_quota_us")):
        words = file.read_text().split()
        if file.name == "cpu.cfs_quota_us":
            words.append((file.parent / "cpu.cfs_period_us").read_text())
        if words[0].isdigit():  # else "max" or -1: no quota
            quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _limit_files(groups: Path, mount: Path, controller: str, names: tuple[str, str]) -> Iterator[Path]:
    """The existing files of a controller, named for versions 2 and 1, in the listed groups and in their parents."""
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, name = (mount / controller, names[1]) if controllers else (mount, names[0])
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root) and (folder / name).exists():
                yield folder / name


def busy_cpus() -> float:
    """The mean number of processors that other programs have used since this module was imported; 0 if it is not known."""
    time.sleep(max(0.0, _IMPORTED + 0.2 - time.monotonic()))  # the system counts in steps of 0.01 s
    now, seconds = _processor_time(), time.monotonic() - _IMPORTED
    if now is None or _AT_IMPORT is None:
        return 0.0
    others = (now[0] - _AT_IMPORT[0]) - (now[1] - _AT_IMPORT[1])
    return max(0.0, others) / seconds


def _processor_time() -> tuple[float, float] | None:
    """Seconds of processor time: of all programs, and of this process."""
    try:
        with Path("/proc/stat").open() as file:
            user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):  # not Linux
        return None
    ticks = user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


_IMPORTED, _AT_IMPORT = time.monotonic(), _processor_time()
