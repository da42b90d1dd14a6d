"""How much memory this process may use, and how it keeps what it has."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path


@functools.cache
def limit() -> int:
    """Bytes that this process may use: those of the machine, or of its control group where that allows less."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows: no limit that is known
        machine = sys.maxsize
    return min([machine, *of_control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def of_control_groups(own: Path, mount: Path) -> list[int]:
    """The limits of the groups that `own` lists, and of those above them; version 1 and 2."""
    found = []
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        below = root / path.lstrip("/")
        for folder in (below, *below.parents):
            file = folder / name
            if folder.is_relative_to(root) and file.exists() and (content := file.read_text().strip()).isdigit():
                found.append(int(content))
    return found
