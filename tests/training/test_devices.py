"""The default number of threads of a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.config.loading import compose_config
from experiments.training import devices


@pytest.fixture
def one_processor():
    """Only one processor may be used, while torch has three threads."""
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(allowed)})
    torch.set_num_threads(3)
    yield
    os.sched_setaffinity(0, allowed)
    torch.set_num_threads(threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
@pytest.mark.parametrize(
    ("variable", "overrides", "expected"),
    [
        (None, [], 1),
        ("OMP_NUM_THREADS", [], devices.TORCH_THREADS),
        ("MKL_NUM_THREADS", [], devices.TORCH_THREADS),
        (None, ["threads=2"], 2),
    ],
)
def test_no_more_threads_than_processors_unless_requested(variable, overrides, expected, one_processor, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(devices.TORCH_THREADS))
    devices.choose_device(compose_config(["device=cpu", *overrides]))
    assert torch.get_num_threads() == expected


CHOOSE = """
from experiments.files import limits
from experiments.training import devices
from experiments.config.loading import compose_config
import torch
config = compose_config(["device=cpu"])
devices.choose_device(config)
print(torch.get_num_threads(), devices.choose_device(config) and torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/stat").exists() or (os.cpu_count() or 1) < 2, reason="nothing to share here")
def test_one_thread_where_other_programs_use_every_processor():
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHOOSE], env=environment, capture_output=True, text=True, timeout=300
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert done.stdout.split() == ["1", "1"], done.stderr
    assert "threads=1, because other programs use" in done.stderr and done.stderr.count("other programs") == 1


def test_the_default_returns_after_a_run_that_set_a_number():
    before, seen = torch.get_num_threads(), []
    try:
        for threads in ("null", "1", "2", "null"):
            devices.choose_device(compose_config(["device=cpu", f"threads={threads}"]))
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen[1:3] == [1, 2] and seen[0] == seen[3]
