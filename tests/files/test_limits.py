"""What a process may use: memory and processors."""

import os

import pytest

from experiments.files.limits import memory_limit, memory_limits, processor_quotas, usable_cpus


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
    assert memory_limits(listed, tmp_path / "mount") == ([limit] if limit else [])


@pytest.mark.parametrize(
    "groups, files, quotas",
    [
        ("0::/a/b", {"a/cpu.max": "50000 100000", "cpu.max": "max 100000"}, [0.5]),
        ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
        ("2:cpuacct,cpu:/a", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, [0.5]),
        ("2:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_the_quota_of_a_control_group_counts(tmp_path, groups, files, quotas):
    listed = tmp_path / "cgroup"
    listed.write_text(groups)
    for name, content in files.items():
        place = tmp_path / "mount" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
    assert processor_quotas(listed, tmp_path / "mount") == quotas


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
def test_the_affinity_of_a_process_limits_its_processors():
    allowed = os.sched_getaffinity(0)
    assert 1 <= usable_cpus() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
