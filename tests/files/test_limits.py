"""What a process may use: memory and processors."""

import os

import pytest

from experiments.files.limits import control_group_limits, memory_limit, usable_cpus


def test_the_memory_limit():
    assert 1 << 28 < memory_limit() <= 1 << 60


@pytest.mark.parametrize(
    "groups, file, limit",
    [
        ("0::/a/b", "a/memory.max", 1000),
        ("0::/", "memory.max", 1000),
        ("4:memory:/a/b\n3:cpuset:/", "memory/a/b/memory.limit_in_bytes", 1000),
        ("3:cpuset:/a", "memory/a/memory.limit_in_bytes", None),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path, groups, file, limit):
    listed = tmp_path / "cgroup"
    listed.write_text(groups)
    place = tmp_path / "mount" / file
    place.parent.mkdir(parents=True)
    place.write_text("1000\n")
    (place.parent / "below").mkdir()
    (place.parent / "below" / place.name).write_text("max\n")
    assert control_group_limits(listed, tmp_path / "mount") == ([limit] if limit else [])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_the_affinity_of_a_process_limits_its_processors():
    allowed = os.sched_getaffinity(0)
    assert 1 <= usable_cpus() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
