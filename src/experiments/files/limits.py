"""The memory and the processors that this process may use."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path


@functools.cache
def memory_limit() -> int:
    """Bytes that this process may use: those of the machine, or of its control group if that allows less."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows: no limit is known
        machine = sys.maxsize
    return min([machine, *control_group_limits(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def control_group_limits(groups: Path, mount: Path) -> list[int]:
    """Memory limits in bytes of the control groups listed in the file `groups`, and of their parents; versions 1 and 2."""
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            file = folder / name
            if folder.is_relative_to(root) and file.exists() and (content := file.read_text().strip()).isdigit():
                limits.append(int(content))
    return limits


def usable_cpus() -> int:
    """Processors that this process may use: those of the machine, or fewer by its affinity or the quota of its container."""
    import joblib  # 0.2 s, and not every process needs it

    return joblib.cpu_count()
