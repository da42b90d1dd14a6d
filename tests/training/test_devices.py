"""The default number of threads of a run."""

import os

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
    devices.default_threads.cache_clear()
    yield
    os.sched_setaffinity(0, allowed)
    torch.set_num_threads(threads)
    devices.default_threads.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to processors")
@pytest.mark.parametrize(
    ("variable", "overrides", "expected"),
    [(None, [], 1), ("OMP_NUM_THREADS", [], 3), ("MKL_NUM_THREADS", [], 3), (None, ["threads=2"], 2)],
)
def test_no_more_threads_than_processors_unless_requested(variable, overrides, expected, one_processor, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "3")
    devices.choose_device(compose_config(["device=cpu", *overrides]))
    assert torch.get_num_threads() == expected


def test_the_default_returns_after_a_run_that_set_a_number(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        devices.default_threads.cache_clear()
        seen = []
        for threads in ("null", "1", "2", "null"):
            devices.choose_device(compose_config(["device=cpu", f"threads={threads}"]))
            seen.append(torch.get_num_threads())
        assert seen == [3, 1, 2, 3]
    finally:
        torch.set_num_threads(before)
        devices.default_threads.cache_clear()
